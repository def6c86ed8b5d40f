#!/usr/bin/env python
"""Labelling, mining, sampling and losses of the RPN, relative to Detectron2's own.

    python benchmarks/rpn_step.py
    python benchmarks/rpn_step.py --rounds 5 --size 320 480

An FPN at 800 x 1344 pixels has 268,569 anchors; 2 images with 20 objects each, on given logits and
deltas, so that neither a backbone nor a head takes part.

Detectron2  label_and_sample_anchors and losses of its RPN
Random      ours with random negatives: the same task
IoUTarget   the same, with the IoU of its regressed box as the target of a positive
OHEM        ours with negatives of largest loss
NRPN        ours with mining: false positives, the nRPN's mini-batch and loss, its hard negatives
            after NMS, all scalars for the log; the nRPN's logits are given, too

They run in turn in one process, forward and backward; the order changes from round to round. The
ratio is the median over rounds, of pairs timed next to each other, with the interval that holds
half of the rounds. "waits" is how often a step waits for a GPU: as CUDA reports it or, on a CPU, as
host_syncs.py counts the operations that would.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_proposal_generator
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from host_syncs import counted_syncs
from tabulate import tabulate
from timing import ON_GPU, device_name, in_turn, ratio, wait_for_gpu
from torch import nn

from nrpn_d2.engine.defaults import build_cfg

DEVICE = "cuda" if ON_GPU else "cpu"
STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
NUM_IMAGES, NUM_OBJECTS = 2, 20


class GivenLogits(nn.Module):
    """In the place of the nRPN."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images, features):
        return self.logits


def build(name):
    """An RPN on an FPN's five maps."""
    generator = "RPN" if name == "Detectron2" else "HardNegativeRPN"
    sampler = name if name in ("OHEM", "NRPN") else "Random"
    loss = name if name == "IoUTarget" else "BCE"
    cfg = build_cfg(
        opts=[
            *("MODEL.PROPOSAL_GENERATOR.NAME", generator),
            *("MODEL.RPN.NEGATIVE_SAMPLER.NAME", sampler),
            *("MODEL.RPN.OBJECTNESS_LOSS.NAME", loss),
            *("MODEL.RPN.IN_FEATURES", list(STRIDES), "MODEL.ROI_HEADS.IN_FEATURES", list(STRIDES)),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [512]]),
            *("MODEL.NRPN.SHARE_FEATURES", True, "MODEL.NRPN.WARMUP_ITERS", 0),
        ]
    )
    shapes = {name: ShapeSpec(channels=8, stride=stride) for name, stride in STRIDES.items()}
    return build_proposal_generator(cfg, shapes).to(DEVICE).train()


def random_objects(size, generator):
    height, width = size
    corners = torch.rand((NUM_OBJECTS, 2, 2), generator=generator)
    corners = corners * torch.tensor([width, height], dtype=torch.float32)
    boxes = torch.cat([corners.amin(1), corners.amax(1) + 8], dim=1)
    objects = Instances(size, gt_boxes=Boxes(boxes), gt_classes=torch.zeros(NUM_OBJECTS).long())
    return objects.to(DEVICE)


class Step:
    """One training step of an RPN on given outputs of its head."""

    def __init__(self, name, size):
        generator = torch.Generator().manual_seed(0)
        self.rpn = build(name)
        maps = [
            torch.zeros((NUM_IMAGES, 8, -(-size[0] // s), -(-size[1] // s)), device=DEVICE)
            for s in STRIDES.values()
        ]
        self.anchors = self.rpn.anchor_generator(maps)
        self.images = ImageList(torch.zeros(NUM_IMAGES, 3, 1, 1), [size] * NUM_IMAGES)
        self.objects = [random_objects(size, generator) for _ in range(NUM_IMAGES)]

        def random(*shape):
            return torch.randn((NUM_IMAGES, *shape), generator=generator).to(DEVICE)

        # About four anchors in a thousand have a score over 0.7
        self.logits = [(1.5 * random(len(a)) - 3).requires_grad_() for a in self.anchors]
        self.deltas = [random(len(a), 4).requires_grad_() for a in self.anchors]
        if name == "NRPN":
            self.rpn.negative_rpn = GivenLogits(random(sum(map(len, self.anchors)))).to(DEVICE)

    def forward(self):
        if hasattr(self.rpn, "learn"):
            inputs = self.images, None, self.anchors, self.logits, self.deltas, self.objects
            return self.rpn.learn(*inputs)
        labels, boxes = self.rpn.label_and_sample_anchors(self.anchors, self.objects)
        return self.rpn.losses(self.anchors, self.logits, labels, self.deltas, boxes)

    def seconds(self):
        """Of the forward pass, and of both passes."""
        start = time.perf_counter()
        loss = sum(self.forward().values())
        wait_for_gpu()
        middle = time.perf_counter()
        loss.backward()
        wait_for_gpu()
        return middle - start, time.perf_counter() - start

    def synchronisations(self):
        """How often the host waits for the GPU in a forward and a backward pass."""
        if DEVICE == "cpu":
            with counted_syncs() as counts:
                sum(self.forward().values()).backward()
            return sum(counts.values())
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sum(self.forward().values()).backward()
        torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in caught)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"))
    args = parser.parse_args()
    names = ("Detectron2", "Random", "IoUTarget", "OHEM", "NRPN")
    steps = {name: Step(name, tuple(args.size)) for name in names}
    with EventStorage():
        seconds = in_turn({name: step.seconds for name, step in steps.items()}, args.rounds)
        rows = []
        for name, step in steps.items():
            (forward, forward_base), (both, both_base) = (
                (seconds[name][:, part], seconds["Detectron2"][:, part]) for part in (0, 1)
            )
            ratios = *ratio(forward, forward_base), *ratio(both, both_base)
            rows.append([name, 1000 * np.median(both), *ratios, step.synchronisations()])
    print(f"{sum(map(len, step.anchors))} anchors, {args.rounds} rounds, {device_name()}")
    headers = ["", "ms", "ratio forward", "half of rounds", "ratio both passes", "half of rounds"]
    print(tabulate(rows, [*headers, "waits"], floatfmt=("", ".0f", ".2f", "", ".2f", "")))


if __name__ == "__main__":
    main()
