#!/usr/bin/env python
"""Does an nRPN cost anything at inference? Time, memory and parameters of three equal models.

    python benchmarks/inference.py                                           # a small R18-FPN
    python benchmarks/inference.py --config-file FILE MODEL.WEIGHTS x.pth    # one's own

with nRPN   the model as trained
stripped    its weights without the nRPN, in this package's RPN
stock       the same weights in Detectron2's RPN

They run in turn in one process, each on the same image; the order changes from round to round. The
ratio to stock is the median over rounds, of pairs timed next to each other, with the interval that
holds half of the rounds. Memory is the peak while a model runs, over what it holds at rest.
"""

import argparse
import functools
import time

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from tabulate import tabulate
from timing import in_turn, peak_memory, ratio, wait_for_gpu
from torch import Tensor, nn

from nrpn_d2.checkpoint.trained_model import load_model
from nrpn_d2.deploy.export import stock_weights
from nrpn_d2.engine.defaults import build_cfg

SMALL_FPN = [
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
    *("MODEL.RESNETS.DEPTH", 18),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"]),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [512]]),
    *("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
    *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"),
    *("MODEL.ROI_BOX_HEAD.NUM_FC", 2),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 256),
    *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 300),
    *("MODEL.PROPOSAL_GENERATOR.NAME", "HardNegativeRPN"),
    *("MODEL.WEIGHTS", ""),
]


def three_models(cfg: CfgNode, trained: nn.Module) -> dict[str, nn.Module]:
    """Return the trained model, its stripped form and stock, all with the same weights."""
    variants = {"with nRPN": trained}
    changes = {
        "stripped": ["MODEL.RPN.NEGATIVE_SAMPLER.NAME", "Random"],
        "stock": ["MODEL.PROPOSAL_GENERATOR.NAME", "RPN"],
    }
    for name, change in changes.items():
        other = cfg.clone()
        other.defrost()
        other.merge_from_list(change)
        variants[name] = build_model(other).eval()
        variants[name].load_state_dict(stock_weights(trained), strict=True)
    return variants


def timed(model: nn.Module, inputs: list[dict[str, Tensor]]) -> float:
    """Return the seconds of one forward pass."""
    start = time.perf_counter()
    with torch.no_grad():
        model(inputs)
    wait_for_gpu()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", help="of a trained model; by default a small R18-FPN")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    args = parser.parse_intermixed_args()
    if args.config_file:
        cfg = build_cfg(args.config_file, args.opts)
        trained = load_model(cfg)
    else:
        cfg = build_cfg("", [*SMALL_FPN, *args.opts])
        trained = build_model(cfg).eval()
    models = three_models(cfg, trained)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *args.size), generator=generator, dtype=torch.uint8)
    inputs = [{"image": image}]
    runs = {name: functools.partial(timed, model, inputs) for name, model in models.items()}
    seconds = in_turn(runs, args.rounds)
    rows = []
    for name, model in models.items():
        rows.append(
            [
                name,
                1000 * np.median(seconds[name]),
                *ratio(seconds[name], seconds["stock"], digits=3),
                peak_memory(runs[name]) / 2**20,
                sum(p.numel() for p in model.parameters()),
                sum(value.numel() for value in stock_weights(model).values()),
            ]
        )
    headers = ["model", "ms", "ratio", "half of rounds", "peak MiB", "parameters", "in the export"]
    print(tabulate(rows, headers, floatfmt=("", ".1f", ".3f", "", ".3f"), intfmt=","))


if __name__ == "__main__":
    main()
