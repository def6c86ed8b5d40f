#!/usr/bin/env python
"""The evaluators and Detectron2's own, in turn, in one process, on a made-up VOC-sized test set.

    python benchmarks/evaluation.py                        # 4,952 images: 20 minutes
    python benchmarks/evaluation.py --images 500 --runs 5

Prints medians and their ratios, the largest difference between the numbers, and the peak memory of
each evaluator in a process of its own, to which the predictions come one image after the other.
"""

import argparse
import contextlib
import gc
import io
import logging
import multiprocessing
import os
import tempfile
import time
from unittest import mock

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.evaluation.coco_evaluation import _evaluate_box_proposals
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools.coco import COCO
from tabulate import tabulate

from nrpn_d2.evaluation import ProposalRecallEvaluator, VOCDetectionEvaluator

NAME, CLASSES, SIZE = "benchmark", [f"class{c}" for c in range(20)], (375, 500)
BUDGETS, DETECTIONS, PROPOSALS = (50, 100, 300), 63, 1000
AREAS = {"small": "s", "medium": "m", "large": "l", "all": ""}


def random_boxes(rng, count):
    corners = rng.integers(1, (SIZE[1], SIZE[0]), (count, 2, 2))
    low, high = corners.min(axis=1), corners.max(axis=1) + 1
    return np.concatenate([low, high], axis=1).astype(np.float32)


def near(rng, boxes, count, per_object):
    """``per_object`` boxes around each object, as NMS leaves them, and the others anywhere."""
    found = random_boxes(rng, count)
    around = np.repeat(boxes, per_object, axis=0)[:count]
    moved = around + rng.normal(0, 0.12, around.shape) * np.tile(around[:, 2:] - around[:, :2], 2)
    found[: len(around), :2] = np.minimum(moved[:, :2], moved[:, 2:])
    found[: len(around), 2:] = np.maximum(moved[:, :2], moved[:, 2:])
    return torch.from_numpy(rng.permutation(found))


def make_detections(rng, boxes):
    found = Instances(SIZE)
    found.pred_boxes = Boxes(near(rng, boxes, DETECTIONS, 10))
    found.scores = torch.from_numpy(rng.random(DETECTIONS).astype(np.float32))
    found.pred_classes = torch.from_numpy(rng.integers(0, len(CLASSES), DETECTIONS))
    return {"instances": found}


def make_proposals(rng, boxes):
    found = Instances(SIZE)
    found.proposal_boxes = Boxes(near(rng, boxes, PROPOSALS, 20))
    found.objectness_logits = torch.linspace(5, -5, PROPOSALS)
    return {"proposals": found}


class Again:
    """An iterable that makes its items anew each time."""

    def __init__(self, make, items):
        self.make, self.items = make, items

    def __iter__(self):
        rng = np.random.default_rng(1)
        return (self.make(rng, item) for item in self.items)


class Data:
    """Objects as dataset dicts, as the XML files Detectron2 reads, and as a COCO; predictions."""

    def __init__(self, num_images, folder):
        rng = np.random.default_rng(0)
        self.inputs = [{"image_id": f"{n:06d}"} for n in range(num_images)]
        self.dicts, objects = [], []
        for image in self.inputs:
            boxes = random_boxes(rng, 1 + rng.poisson(2))  # VOC 2007 test: 3.0 per image
            classes = rng.integers(0, len(CLASSES), len(boxes))
            difficult = rng.random(len(boxes)) < 0.2
            annotations = [
                dict(bbox=b, bbox_mode=BoxMode.XYXY_ABS, category_id=int(c), difficult=int(d))
                for b, c, d in zip(boxes.tolist(), classes, difficult)
            ]
            self.dicts.append({**image, "annotations": annotations})
            objects.append(boxes)
        self.detections = Again(make_detections, objects)
        self.proposals = Again(make_proposals, objects)
        self.folder = folder
        DatasetCatalog.register(NAME, lambda: self.dicts)
        MetadataCatalog.get(NAME).set(
            thing_classes=CLASSES, dirname=folder, split="test", year=2007
        )

    def keep_predictions(self):
        """Make the predictions once, so that no evaluation waits for them."""
        self.detections, self.proposals = list(self.detections), list(self.proposals)

    def write_xml(self):
        for part in ("Annotations", "ImageSets/Main"):
            os.makedirs(os.path.join(self.folder, part))
        with open(os.path.join(self.folder, "ImageSets/Main/test.txt"), "w") as f:
            f.write("\n".join(image["image_id"] for image in self.inputs))
        for record in self.dicts:
            with open(f"{self.folder}/Annotations/{record['image_id']}.xml", "w") as f:
                f.write("<annotation>")
                for obj in record["annotations"]:
                    x0, y0, x1, y1 = obj["bbox"]
                    f.write(
                        f"<object><name>{CLASSES[obj['category_id']]}</name><pose>-</pose>"
                        f"<truncated>0</truncated><difficult>{obj['difficult']}</difficult><bndbox>"
                        f"<xmin>{x0 + 1:.0f}</xmin><ymin>{y0 + 1:.0f}</ymin><xmax>{x1:.0f}</xmax>"
                        f"<ymax>{y1:.0f}</ymax></bndbox></object>"
                    )
                f.write("</annotation>")

    def coco(self):
        """The objects that are not difficult, as pycocotools' COCO."""
        annotations = []
        for n, record in enumerate(self.dicts):
            for obj in record["annotations"]:
                if not obj["difficult"]:
                    x0, y0, x1, y1 = obj["bbox"]
                    box = [x0, y0, x1 - x0, y1 - y0]
                    # Detectron2 counts an area of exactly 32^2 or 96^2 in two ranges.
                    area = box[2] * box[3] + 0.5 * (box[2] * box[3] in (32**2, 96**2))
                    annotations.append(
                        dict(id=len(annotations) + 1, image_id=n, bbox=box, area=area, iscrowd=0)
                    )
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": n} for n in range(len(self.dicts))],
                "annotations": annotations,
            }
            coco.createIndex()
        return coco


def run(evaluator, inputs, outputs):
    """Results, seconds in all, seconds after the last image."""
    evaluator.reset()
    start = time.perf_counter()
    for image, output in zip(inputs, outputs):
        evaluator.process([image], [output])
    last_image = time.perf_counter()
    results = evaluator.evaluate()
    end = time.perf_counter()
    return results, end - start, end - last_image


def ap_detectron2(data):
    return run(PascalVOCDetectionEvaluator(NAME), data.inputs, data.detections)


def ap_ours(data):
    return run(VOCDetectionEvaluator(NAME), data.inputs, data.detections)


def recall_detectron2(data):
    predictions = [{"image_id": n, **output} for n, output in enumerate(data.proposals)]
    coco, results = data.coco(), {}
    start = time.perf_counter()
    for budget in BUDGETS:
        for area, suffix in AREAS.items():
            stats = _evaluate_box_proposals(predictions, coco, area=area, limit=budget)
            results[f"AR{suffix}@{budget}"] = 100 * stats["ar"].item()
    seconds = time.perf_counter() - start
    return {"box_proposals": results}, seconds, seconds


def recall_ours(data):
    return run(ProposalRecallEvaluator(NAME, budgets=BUDGETS), data.inputs, data.proposals)


def compare(title, theirs, ours, data, runs, keys):
    """Run both in turn; print medians, the ratio, and the largest difference of the metrics."""
    timings = {theirs: [], ours: []}
    results = {}
    for _ in range(runs):
        for evaluate in (theirs, ours):
            results[evaluate], *seconds = evaluate(data)
            timings[evaluate].append(seconds)
    a, b = (np.median(timings[evaluate], axis=0) for evaluate in (theirs, ours))
    rows = [
        [when, *pair, f"{pair[0] / pair[1]:.0f}x"]
        for when, pair in (("all", (a[0], b[0])), ("after the last image", (a[1], b[1])))
    ]
    print(f"\n{title}, median of {runs}")
    print(tabulate(rows, ["seconds", "Detectron2", "nrpn_d2", "ratio"], floatfmt=".3f"))
    difference = max(
        abs(results[theirs][task][key] - results[ours][task][key]) for task, key in keys
    )
    print(f"largest difference of {len(keys)} metrics: {difference:.2g} percent points", flush=True)


def peak_memory(evaluate, num_images):
    """Peak resident memory in this process beyond the objects, in MiB.

    The predictions come one image after the other, as from a model: Detectron2's recall keeps them.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Data(num_images, folder)
        data.write_xml()
        gc.collect()
        before = memory("VmRSS")
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # the peak so far becomes what is resident
        evaluate(data)
        return memory("VmHWM") - before


def memory(field):
    """A field of this process's /proc/self/status, in MiB."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(field)) / 2**10


def recall_detectron2_once(data):
    """The first of the twelve passes of :func:`recall_detectron2`: each needs the same memory."""
    with mock.patch.dict(AREAS, {"all": ""}, clear=True), mock.patch(f"{__name__}.BUDGETS", (300,)):
        return recall_detectron2(data)


def compare_memory(num_images):
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for title, *evaluations in (
        ("VOC AP", ap_detectron2, ap_ours),
        ("proposal recall", recall_detectron2_once, recall_ours),
    ):
        row = [title]
        for evaluate in evaluations:
            with spawn.Pool(1) as pool:
                row.append(pool.apply(peak_memory, (evaluate, num_images)))
        rows.append(row)
    print("\nPeak memory on top of the objects, MiB")
    print(tabulate(rows, ["", "Detectron2", "nrpn_d2"], floatfmt=".0f"))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4952, help="as many as VOC 2007 test has")
    parser.add_argument("--runs", type=int, default=3, help="of each evaluator")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        data = Data(args.images, folder)
        data.write_xml()
        data.keep_predictions()
        print(
            f"{args.images} images, {args.images * DETECTIONS} detections, "
            f"{PROPOSALS} proposals per image"
        )
        keys = [("bbox", key) for key in ("AP", "AP50", "AP75")]
        # Detectron2's text files round scores and boxes, and it wants an IoU above the threshold
        compare("VOC AP", ap_detectron2, ap_ours, data, args.runs, keys)
        keys = [("box_proposals", f"AR{z}@{k}") for k in BUDGETS for z in AREAS.values()]
        compare("Proposal recall", recall_detectron2, recall_ours, data, args.runs, keys)
    compare_memory(args.images)


if __name__ == "__main__":
    main()
