#!/usr/bin/env python
"""The page of a large run, made up: how long it takes, and how large it is.

python benchmarks/run_page.py                            # 80 classes, 5,000 images: two minutes
python benchmarks/run_page.py --classes 20 --images 500
"""

import argparse
import json
import os
import tempfile
import time

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from nrpn_d2 import add_nrpn_config
from nrpn_d2.evaluation import build_evaluators
from nrpn_d2.evaluation.page.pages import PAGE, write_run_page

NAME, SIZE = "benchmark", (480, 640)
OBJECTS, DETECTIONS, PROPOSALS, ITERATIONS = 7, 30, 100, 500_000


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.integers(1, SIZE[::-1], (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1) + 8], axis=1).astype(np.float32)


def moved(rng: np.random.Generator, boxes: np.ndarray, count: int) -> Boxes:
    """Return boxes around the objects, a few times each, and others anywhere."""
    around = np.repeat(boxes, count // 10, axis=0)[:count]
    near = around + rng.normal(0, 8, around.shape)
    near = np.concatenate([near[:, :2], np.maximum(near[:, 2:], near[:, :2])], axis=1)
    anywhere = random_boxes(rng, count - len(near))
    return Boxes(torch.as_tensor(np.concatenate([near, anywhere]), dtype=torch.float32))


def evaluate(folder: str, num_classes: int, num_images: int) -> float:
    """Write what an evaluation writes; return its seconds, those of predictions left out."""
    rng = np.random.default_rng(0)
    records = []
    pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)  # noise: what JPEG compresses worst
    Image.fromarray(pixels).save(os.path.join(folder, "0.jpg"))
    for n in range(num_images):
        path = os.path.join(folder, f"{n}.jpg")
        if n:
            os.link(os.path.join(folder, "0.jpg"), path)
        boxes = random_boxes(rng, 1 + rng.poisson(OBJECTS - 1))
        classes = rng.integers(0, num_classes, len(boxes)).tolist()
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": c}
            for box, c in zip(boxes.tolist(), classes)
        ]
        records.append({"image_id": n, "file_name": path, "annotations": annotations})
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(thing_classes=[f"class {c}" for c in range(num_classes)])
    cfg = get_cfg()
    add_nrpn_config(cfg)
    with open(os.path.join(folder, "config.yaml"), "w") as file:
        file.write(cfg.dump())
    evaluators = build_evaluators(cfg, NAME, os.path.join(folder, "inference"))
    for record in records:
        boxes = np.array([x["bbox"] for x in record["annotations"]])
        found, proposed = Instances(SIZE), Instances(SIZE)
        found.pred_boxes = moved(rng, boxes, DETECTIONS)
        right = np.repeat([x["category_id"] for x in record["annotations"]], DETECTIONS // 10)
        found.pred_classes = torch.as_tensor(
            np.append(right, rng.integers(0, num_classes, DETECTIONS))[:DETECTIONS]
        )
        found.scores = torch.linspace(1, 0, DETECTIONS)
        proposed.proposal_boxes = moved(rng, boxes, PROPOSALS)
        proposed.objectness_logits = torch.linspace(5, -5, PROPOSALS)
        evaluators.process([record], [{"instances": found, "proposals": proposed}])
    start = time.perf_counter()
    evaluators.evaluate()
    return time.perf_counter() - start


def write_history(folder: str) -> None:
    """Write the scalars of a long training."""
    losses = ("total_loss", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg")
    exchange = ("nrpn/joint", "nrpn/false_positives", "nrpn/hard_negatives", "nrpn/believed")
    others = [f"other/{i}" for i in range(12)]
    rng = np.random.default_rng(0)
    with open(os.path.join(folder, "metrics.json"), "w") as file:
        for i in range(19, ITERATIONS, 20):
            names = (*losses, *exchange, *others)
            row = dict(zip(names, rng.random(len(names)).tolist()))
            file.write(json.dumps({"iteration": i, **row}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--images", type=int, default=5000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"Evaluation: {evaluate(folder, args.classes, args.images):.1f} s")
        write_history(folder)
        start = time.perf_counter()
        write_run_page(folder)
        took = time.perf_counter() - start
        size = os.path.getsize(os.path.join(folder, PAGE)) / 1e6
        print(f"Page of {args.classes} classes, {args.images} images: {took:.1f} s, {size:.2f} MB")


if __name__ == "__main__":
    main()
