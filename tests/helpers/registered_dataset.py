"""A dataset for one test, under a name of its own, and what models give for its images."""

from contextlib import contextmanager
from uuid import uuid4

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances


@contextmanager
def registered(objects, class_names, image_ids=None, **metadata):
    """
    Args:
        objects (list[list[tuple]]): per image, (box, class number[, difficult]); difficult is
            0, 1 or "crowd".
        image_ids (list): "0", "1", ... by default.

    Yields:
        str: the dataset's name.
    """
    name = f"test_{uuid4().hex}"
    dicts = [
        {
            "file_name": f"{n}.jpg",
            "image_id": image_ids[n] if image_ids else str(n),
            "height": 300,
            "width": 400,
            "annotations": [
                {
                    "bbox": [float(x) for x in box],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": category,
                    "difficult": int(1 in difficult),
                    "iscrowd": int("crowd" in difficult),
                }
                for box, category, *difficult in of_image
            ],
        }
        for n, of_image in enumerate(objects)
    ]
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(thing_classes=list(class_names), **metadata)
    try:
        yield name
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def proposals(boxes, logits=None, configured=None):
    """The output for one image; without logits, the first box is the best."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    most = Instances((300, 400))
    most.proposal_boxes = Boxes(torch.from_numpy(boxes))
    most.objectness_logits = torch.as_tensor(
        np.arange(len(boxes), 0, -1) if logits is None else logits, dtype=torch.float32
    )
    return {"proposals": most[:configured], "most_proposals": most}


def detected(boxes, classes, scores):
    """The output for one image."""
    instances = Instances((300, 400))
    instances.pred_boxes = Boxes(torch.as_tensor(np.asarray(boxes, np.float32).reshape(-1, 4)))
    instances.pred_classes = torch.as_tensor(classes, dtype=torch.int64)
    instances.scores = torch.as_tensor(scores, dtype=torch.float32)
    return {"instances": instances}


def random_boxes(rng, count, width=400, height=300):
    """(count, 4) float32 boxes of at least one pixel, with whole-number corners."""
    x0 = rng.integers(0, width - 1, count)
    y0 = rng.integers(0, height - 1, count)
    x1 = rng.integers(x0 + 1, width)
    y1 = rng.integers(y0 + 1, height)
    return np.stack([x0, y0, x1, y1], axis=1).astype(np.float32)


def near_boxes(rng, boxes, count, spread=0.15):
    """(count, 4) float32 boxes around randomly chosen ones of ``boxes`` (G, 4)."""
    chosen = boxes[rng.integers(0, len(boxes), count)]
    sides = np.tile(chosen[:, 2:] - chosen[:, :2], 2)
    moved = chosen + rng.normal(0, spread, chosen.shape) * sides
    low, high = np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])
    return np.concatenate([low, high], axis=1).astype(np.float32)
