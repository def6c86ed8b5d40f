#!/usr/bin/env python
"""Export a detector or a proposal network to TorchScript or ONNX, and check that it is the same.

    python tools/export_model.py --config-file configs/shapes_nrpn.yaml --format onnx \\
        --output exported MODEL.WEIGHTS output/demo/model_final.pth

The exported model takes one image (3, H, W) of 0 to 255, resized and in the order of INPUT.FORMAT.
It is compared with the model on noise of three sizes, or on --images; the exit code is 1 if they
differ.
"""

import argparse
import os
import sys

from command import new_parser, parse, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="the config of the training")
    parser.add_argument("--format", choices=("torchscript", "onnx"), default="torchscript")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--images", action="append", default=[], help="to compare on; repeat it")
    return parse(parser, args)


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.checkpoint.trained_model import load_model
    from nrpn_d2.deploy import graph
    from nrpn_d2.deploy.predictor import Predictor
    from nrpn_d2.deploy.sources import read_image
    from nrpn_d2.engine.defaults import build_cfg

    cfg = build_cfg(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"])
    model = load_model(cfg)
    resize = Predictor(cfg, model).inputs_of_rgb
    images = []
    for path in args.images:
        try:
            images.append(resize(read_image(path))["image"].float())
        except ValueError as error:
            sys.exit(f"{path}: {error}")
    images = images or graph.noise_images(cfg.INPUT.MIN_SIZE_TEST)
    traced = graph.InferenceGraph(model, images[0])
    os.makedirs(args.output, exist_ok=True)
    path = os.path.join(args.output, graph.FILE_NAMES[args.format])
    try:
        traced.to_onnx(path) if args.format == "onnx" else traced.to_torchscript(path)
    except Exception as e:
        other = next(name for name in graph.FILE_NAMES if name != args.format)
        reason = f"{type(e).__name__}: {e}".splitlines()[0]  # torch adds the whole graph
        sys.exit(f"Cannot export this model to {args.format}: {reason}. Try --format {other}")
    print(f"{path}: image -> {', '.join(traced.names)}")
    try:
        exported = graph.load_exported(path, traced.names)
        print("\n".join(graph.check_parity(traced, exported, images)))
    except ValueError as e:
        sys.exit(f"{path} does not give what the model gives: {e}")


if __name__ == "__main__":
    run(main, parse_args(), log=True)
