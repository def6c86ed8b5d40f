#!/usr/bin/env python
"""Export a detector or a proposal network to TorchScript or ONNX, and check that it is the same.

    python tools/export_model.py --config-file configs/shapes_nrpn.yaml --format onnx \
        --output exported MODEL.WEIGHTS output/demo/model_final.pth

The exported model takes one image (3, H, W) of 0 to 255, resized and in the order of INPUT.FORMAT.
It is compared with the model on noise of three sizes, or on --images; the exit code is 1 if they
differ.
"""

import argparse
import os
import sys

import torch
from detectron2.data.detection_utils import read_image
from detectron2.utils.logger import setup_logger

from nrpn_d2.deploy.export import FORMATS, InferenceGraph, check_parity, load_exported
from nrpn_d2.deploy.predictor import Predictor, load_config, load_model


def random_images(side):
    """Noise (3, H, W) of three sizes."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(side, side * 4 // 3), (side * 3 // 2, side), (side + 7, side + 7)]
    return [torch.randint(0, 256, (3, *size), generator=generator).float() for size in sizes]


def images_to_compare(cfg, paths):
    if not paths:
        return random_images(cfg.INPUT.MIN_SIZE_TEST)
    resize = Predictor(cfg, None).inputs
    return [resize(read_image(path, cfg.INPUT.FORMAT))["image"].float() for path in paths]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the training")
    parser.add_argument("--format", choices=FORMATS, default="torchscript")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--images", nargs="+", help="images to compare on, better than noise")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    args = parser.parse_args()
    setup_logger(name="nrpn_d2")
    cfg = load_config(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"])
    images = images_to_compare(cfg, args.images)
    graph = InferenceGraph(load_model(cfg), images[0])
    os.makedirs(args.output, exist_ok=True)
    path = os.path.join(args.output, FORMATS[args.format])
    try:
        graph.to_onnx(path) if args.format == "onnx" else graph.to_torchscript(path)
    except Exception as e:
        works = ", ".join(f"--format {name}" for name in FORMATS if name != args.format)
        sys.exit(
            f"torch {torch.__version__} cannot export this model to {args.format} "
            f"({type(e).__name__}: {e}). What may work: {works}"
        )
    print(f"{path}: image -> {', '.join(graph.names)}")
    try:
        print("\n".join(check_parity(graph, load_exported(path), images)))
    except ValueError as e:
        sys.exit(f"{path} does not give what the model gives: {e}")


if __name__ == "__main__":
    main()
