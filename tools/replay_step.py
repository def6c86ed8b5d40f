#!/usr/bin/env python
"""Run a training step again that stopped because its losses were not finite.

    python tools/replay_step.py output/nonfinite_iter_0001234_rank0.pth --config-file CONFIG
    python tools/replay_step.py FILE --config-file CONFIG MODEL.DEVICE cpu

CONFIG and KEY VALUE pairs are those of the training. The file has the weights before the step, the
batch, and the seed of its random numbers. Prints the losses then and now.
"""

import argparse
import math

from detectron2.modeling import build_model
from tabulate import tabulate

from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer
from nrpn_d2.engine.defaults import build_cfg
from nrpn_d2.engine.replay import replay_step
from nrpn_d2.engine.trainer import scale_nrpn_warmup
from nrpn_d2.utils.safe_load import load_file


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="nonfinite_iter_*.pth, which the error names")
    parser.add_argument("--config-file", required=True, help="the config of the training")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs of the config")
    return parser.parse_intermixed_args()  # the options may stand anywhere


def main():
    args = parse_arguments()
    saved = load_file(args.file)
    if not {"batch", "seed", "rank", "world_size", "iteration", "losses"} <= set(saved):
        raise SystemExit(f"{args.file} is a checkpoint without a training step")
    cfg = build_cfg(args.config_file, [*args.opts, "MODEL.WEIGHTS", args.file])
    cfg = scale_nrpn_warmup(cfg, saved["world_size"])
    model = build_model(cfg)
    NRPNCheckpointer.from_config(cfg, model).load(args.file)
    losses, errors = replay_step(cfg, model, saved)
    print(f"Iteration {saved['iteration']}, rank {saved['rank']}, seed {saved['seed']}")
    print("Images: " + ", ".join(str(item.get("file_name", "?")) for item in saved["batch"]))
    rows = [
        [name, then, losses.get(name), "" if math.isfinite(then) else "<- not finite"]
        for name, then in saved["losses"].items()
    ]
    print(tabulate(rows, headers=["loss", "then", "now", ""], floatfmt=".6g"))
    for error in errors:
        print(error)


if __name__ == "__main__":
    main()
