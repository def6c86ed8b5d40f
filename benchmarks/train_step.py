#!/usr/bin/env python
"""A whole training step with an nRPN, relative to Detectron2's RPN: time and memory.

    python benchmarks/train_step.py                      # VGG-16 and R50-FPN; small images on a CPU
    python benchmarks/train_step.py --amp                # mixed precision; R50-FPN only on a CPU
    python benchmarks/train_step.py --models R50-FPN --size 480 640 --images 4 --rounds 20

Forward and backward pass and SGD, of the detectors in configs/voc_nrpn_*.yaml with random weights:

stock          Detectron2's RPN
shared         an nRPN with a second head on the RPN's features
separate       an nRPN with a backbone of its own, as in the paper
one more       forward, backward and SGD of that nRPN alone: what "separate" adds at least
channels_last  "separate" in that memory format
compiled       "separate" with both backbones under torch.compile

They run in turn in one process; the order changes from round to round. The ratio to stock is the
median over rounds, of pairs timed next to each other, with the interval that holds half of the
rounds. Then "separate" relative to the sum of "stock" and "one more". Memory is the peak while a
step runs, over what is held between steps (on a CPU: of tensors, by torch's profiler).
"""

import argparse
import os
import time

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from timing import ON_GPU, device_name, in_turn, peak_memory, ratio, wait_for_gpu

from nrpn_d2.engine.defaults import build_cfg

CONFIGS = {"VGG-16": "voc_nrpn_vgg16.yaml", "R50-FPN": "voc_nrpn_R50_FPN.yaml"}
VARIANTS = {
    "stock": ["MODEL.PROPOSAL_GENERATOR.NAME", "RPN"],
    "shared": ["MODEL.NRPN.SHARE_FEATURES", True],
    "separate": [],
    "one more": [],
    "channels_last": [],
    "compiled": [],
}


def config(model, variant):
    folder = os.path.join(os.path.dirname(__file__), "..", "configs")
    options = ["MODEL.WEIGHTS", "", "MODEL.NRPN.WARMUP_ITERS", 0]
    # Random networks neither learn, nor do their activations stay small
    options += ["SOLVER.BASE_LR", 0.0, "MODEL.PIXEL_STD", [1e4] * 3]
    # and without this they have no false positives
    options += ["MODEL.NRPN.FP_SELECT", "topk"]
    return build_cfg(os.path.join(folder, CONFIGS[model]), options + VARIANTS[variant])


def random_batch(num_images, size):
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([size[1], size[0]] * 2)
    batch = []
    for _ in range(num_images):
        corners = torch.rand((10, 2, 2), generator=generator).sort(dim=1).values.flatten(1)
        classes = torch.randint(0, 20, (10,), generator=generator)
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        objects = Instances(size, gt_boxes=Boxes(corners * scale), gt_classes=classes)
        batch.append({"image": image, "instances": objects})
    return batch


class Step:
    """One training step of a variant of a detector."""

    def __init__(self, model, variant, batch, amp):
        torch.manual_seed(0)
        cfg = config(model, variant)
        self.model = build_model(cfg).train()
        self.batch = batch
        self.amp = amp
        self.alone = variant == "one more"
        trained = self.model.proposal_generator.negative_rpn if self.alone else self.model
        self.optimizer = build_optimizer(cfg, trained)
        if variant == "channels_last":
            self.model.to(memory_format=torch.channels_last)
        if variant == "compiled":
            self.model.backbone.compile()
            self.model.proposal_generator.negative_rpn.backbone.compile()

    def __call__(self):
        """Take the step, and return its seconds."""
        start = time.perf_counter()
        kind, precision = ("cuda", torch.float16) if ON_GPU else ("cpu", torch.bfloat16)
        with torch.autocast(kind, dtype=precision, enabled=self.amp):
            if self.alone:
                images = self.model.preprocess_image(self.batch)
                loss = self.model.proposal_generator.negative_rpn(images, None).float().mean()
            else:
                loss = sum(self.model(self.batch).values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        wait_for_gpu()
        return time.perf_counter() - start


def compare(model, variants, batch, args):
    """Print a table of one detector."""
    steps = {variant: Step(model, variant, batch, args.amp) for variant in variants}
    with EventStorage():
        seconds, memory = in_turn(steps, args.rounds), {}
        for variant, step in steps.items():
            step.optimizer.zero_grad()
            memory[variant] = peak_memory(step)
    rows = []
    for variant, of_variant in seconds.items():
        ratios = ratio(of_variant, seconds["stock"])
        rows.append([variant, np.median(of_variant), *ratios, memory[variant] / 2**20])
    headers = [model, "seconds", "ratio", "half of rounds", "peak MiB"]
    print("\n" + tabulate(rows, headers, floatfmt=("", ".3f", ".2f", "", ".0f")))
    if {"separate", "one more"} <= seconds.keys():
        median, half = ratio(seconds["separate"], seconds["stock"] + seconds["one more"])
        print(f"separate / (stock + one more): {median:.2f}, half of rounds {half}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = (800, 1216) if ON_GPU else (224, 320)
    parser.add_argument("--models", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS)[:4])
    parser.add_argument("--size", type=int, nargs=2, default=size, metavar=("H", "W"))
    parser.add_argument("--images", type=int, default=2, help="per step")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--amp", action="store_true", help="float16 on a GPU, bfloat16 on a CPU")
    args = parser.parse_args()
    if "stock" not in args.variants:
        parser.error("--variants needs stock, to which the others are compared")
    if args.amp and not ON_GPU and "VGG-16" in args.models:
        parser.error("--amp on a CPU: torchvision's RoIPool, of VGG-16, cannot; --models R50-FPN")
    print(
        f"{args.images} images of {args.size[0]} x {args.size[1]}, {args.rounds} rounds, "
        f"mixed precision {'on' if args.amp else 'off'}, {device_name()}"
    )
    for model in args.models:
        compare(model, args.variants, random_batch(args.images, tuple(args.size)), args)


if __name__ == "__main__":
    main()
