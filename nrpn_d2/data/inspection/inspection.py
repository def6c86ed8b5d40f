"""Whole datasets: the reader's faults, every image in parallel, and statistics."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ...utils.parallel import parallel_map
from ..anchors.reach import REACHED, AnchorLevel, best_ious, reached
from ..anchors.seen import seen_objects
from ..checks import class_names
from ..faults import DatasetError
from ..loader import missing_shapes
from ..reading import collected_faults, is_ignored
from .findings import large_boxes, near_duplicates
from .image import Finding, Task, inspect_image

# Areas in pixels at which COCO separates small, medium and large objects
_AREAS = (32**2, 96**2)


class Inspection(NamedTuple):
    statistics: dict[str, dict[str, Any]]  # by dataset
    findings: list[Finding]
    readable: list[Task]  # images that can be decoded


def inspect_datasets(
    cfg: CfgNode, names: Sequence[str], levels: Sequence[AnchorLevel]
) -> Inspection:
    """Inspect registered datasets.

    Args:
        cfg: says at which size the network sees the images. Its DATASETS.ON_ERROR is to be "skip":
            the faults become findings.
    """
    findings, tasks, statistics = [], [], {}
    for name in dict.fromkeys(names):
        records, faults = _read(name)
        findings += faults
        classes = class_names(name)
        of_dataset = [Task(name, record, len(classes)) for record in records]
        images = list(parallel_map(inspect_image, of_dataset, f"Checking {name}"))
        for task, image in zip(of_dataset, images):
            findings += image.findings
            if image.size:  # of Detectron2's own datasets, some do not say it
                task.record.setdefault("width", image.size[0])
                task.record.setdefault("height", image.size[1])
            for message in missing_shapes(cfg, task.record):
                path = task.record["file_name"]
                findings.append(Finding("missing shape", name, path, message))
        findings += large_boxes(of_dataset, classes)
        statistics[name] = _statistics(cfg, records, classes, levels)
        tasks += zip(of_dataset, images)
    readable = [(task, image.bits) for task, image in tasks if image.bits is not None]
    hashes = np.array([bits for _, bits in readable]).reshape(-1, 64)
    readable = [task for task, _ in readable]
    return Inspection(statistics, findings + near_duplicates(readable, hashes), readable)


def _read(name: str) -> tuple[list[dict[str, Any]], list[Finding]]:
    records, findings = [], []
    with collected_faults() as faults:
        try:
            records = DatasetCatalog.get(name)
        except DatasetError as error:
            findings.append(Finding(error.kind, name, "", str(error)))
    findings += [Finding(fault.kind, name, path, str(fault)) for fault, path in faults]
    # Copies: the catalog may give the same dicts to others
    return [dict(record) for record in records], findings


def _statistics(
    cfg: CfgNode,
    records: list[dict[str, Any]],
    classes: Sequence[str],
    levels: Sequence[AnchorLevel],
) -> dict[str, Any]:
    per_image = [len(record.get("annotations", ())) for record in records]
    annotations = [obj for record in records for obj in record.get("annotations", ())]
    numbers = Counter(obj["category_id"] for obj in annotations)
    objects = seen_objects([r for r in records if r.get("width") and r.get("height")], cfg)
    areas = np.searchsorted(_AREAS, objects.shapes.prod(axis=1), side="right")
    best = best_ious(objects, levels).max(axis=1)
    fractions = reached(best) if len(best) else (None,) * len(REACHED)
    return {
        "images": len(records),
        "images without objects": per_image.count(0),
        "objects": len(annotations),
        "ignored objects": sum(map(is_ignored, annotations)),
        "classes": {name: numbers[number] for number, name in enumerate(classes)},
        "objects per image": {
            "median": float(np.median(per_image)) if per_image else None,
            "mean": float(np.mean(per_image)) if per_image else None,
            "most": max(per_image, default=None),
        },
        "sizes in training": {size: int((areas == i).sum()) for i, size in enumerate("SML")},
        "reached by the anchors": {f"IoU {iou:g}": x for iou, x in zip(REACHED, fractions)},
    }
