"""What a detector gets wrong, by kind, by class and by image, at the score threshold that suits it.

A ProposalNetwork is taken for a detector of one class, "object".

Shape shorthand: D detections of all images, best score first; G objects; C classes; T thresholds.
"""

import os
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from ..utils.boxes import covered_fraction
from .evaluator import PerImageEvaluator, read_scores
from .ground_truth import GroundTruth
from .proposal_errors import BACKGROUND_IOU, CROWD_FRACTION, HIT_IOU
from .voc_ap import best_objects
from .voc_evaluator import read_instances

# Right and wrong as for VOC's AP: a detection claims the object of its class that it overlaps most;
# the best-scored claim with IoU >= 0.5 is a hit and the others are duplicates. What claims nothing
# is named after the object of any class that it overlaps most: IoU >= 0.5 "class", IoU >= 0.3
# "localisation", less "background". A claim on a difficult object is ignored and, as among the
# proposals, what lies by half on a crowd (of its class)
KINDS = ("hit", "duplicate", "class", "localisation", "background", "ignored")
HIT, DUPLICATE, CLASS, LOCALISATION, BACKGROUND, IGNORED = range(len(KINDS))

THRESHOLDS = np.arange(101) / 100
MAX_PROPOSALS = 100  # of each image, that are looked at


class MistakeEvaluator(PerImageEvaluator):
    """Kinds of errors, confusions, and precision, recall and F1 at each score.

    ``evaluate`` returns the task "mistakes": "threshold", the score at which F1 is largest; at it,
    "precision", "recall" and "F1" in percent and, per image, the numbers of each of KINDS and of
    "missed" objects. "precision-name", "recall-name", "F1-name" and "threshold-name", at which that
    class's own F1 is largest, are those of a class; nan without objects. A threshold is nan where
    no score has a hit. There is no such task for proposals without logits.

    ``curves["mistakes"]`` has "score" with "precision", "recall" and "F1" (T,) in [0, 1];
    "confusions", rows of true class, predicted class and number, where class C is background (of an
    object: missed); "images" and "objects" [class: number].

    ``files["mistakes.json"]`` has the objects and the detections above the threshold of each image.
    """

    def __init__(self, dataset_name: str, *, class_agnostic: bool = False, **common: Any):
        super().__init__(dataset_name, **common)
        self._agnostic = class_agnostic

    @classmethod
    def from_config(cls, cfg: CfgNode, truth: GroundTruth) -> "MistakeEvaluator":
        agnostic = cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork"
        return super().from_config(cfg, truth, class_agnostic=agnostic)

    def _read(
        self, output: dict[str, Any], n: int, origin: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return classes, scores and boxes."""
        if not self._agnostic:
            return read_instances(output.get("instances"), self.ground_truth, origin)
        boxes, scores, configured = read_scores(output, origin)
        kept = min(configured, MAX_PROPOSALS)
        return np.zeros(kept, np.int32), scores[:kept].copy(), boxes[:kept].copy()

    def _compute(self, records: dict[int, Any]) -> dict[str, dict[str, float]]:
        truth = self.ground_truth
        gt_classes = np.zeros_like(truth.classes) if self._agnostic else truth.classes
        names = ["object"] if self._agnostic else truth.class_names
        empty = np.empty(0, np.int32), np.empty(0), np.empty((0, 4))
        images = np.repeat(np.array([*records], int), [len(r[0]) for r in records.values()])
        classes, scores, boxes = map(np.concatenate, zip(empty, *records.values()))
        if np.isnan(scores).any():  # of proposals that are only ranked
            return {}
        order = np.lexsort((images, -scores))
        images, classes, scores, boxes = (x[order] for x in (images, classes, scores, boxes))
        kinds, objects = match_detections(images, classes, boxes, gt_classes, truth)

        wrong = (CLASS, LOCALISATION, BACKGROUND) + (() if self._agnostic else (DUPLICATE,))
        counts = np.bincount(gt_classes[~truth.ignored], minlength=len(names))
        hits, errors = (
            _at_least(classes[chosen], scores[chosen], len(names))
            for chosen in (kinds == HIT, np.isin(kinds, wrong))
        )
        overall = rates(hits.sum(0), errors.sum(0), counts.sum())
        at = best_threshold(overall["F1"])
        results = {"threshold": _suggested(overall["F1"])}
        kept = scores >= THRESHOLDS[at]
        confusions = _confusions(
            (kinds[kept], objects[kept], classes[kept]), gt_classes, truth.ignored, len(names)
        )
        results |= {name: 100 * float(curve[at]) for name, curve in overall.items()}
        num_images = max(len(truth.image_index), 1)
        of_kinds = np.bincount(kinds[kept], minlength=len(KINDS)) / num_images
        results.update(zip(KINDS, of_kinds.tolist()))
        results["missed"] = float((counts.sum() - hits.sum(0)[at]) / num_images)
        for c, name in enumerate(names):
            of_class = rates(hits[c], errors[c], counts[c])
            results[f"threshold-{name}"] = _suggested(of_class["F1"])
            results |= {f"{k}-{name}": 100 * float(curve[at]) for k, curve in of_class.items()}
        self.curves["mistakes"] = {
            "score": THRESHOLDS,
            **overall,
            "confusions": confusions,
            "images": len(truth.image_index),
            "objects": dict(zip(names, counts.tolist())),
        }
        found = np.zeros(len(truth.boxes), bool)
        found[objects[kept & (kinds == HIT)]] = True
        detections = [x[kept] for x in (images, boxes, classes, scores, kinds)]
        self.files["mistakes.json"] = {
            "dataset": truth.dataset_name,
            "classes": names,
            "kinds": KINDS,
            "threshold": float(THRESHOLDS[at]),
            "images": _by_image(truth, gt_classes, found, *detections),
        }
        return {"mistakes": results}


def match_detections(
    images: np.ndarray,
    classes: np.ndarray,
    boxes: np.ndarray,
    gt_classes: np.ndarray,
    truth: GroundTruth,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kind (D,) of each detection, and the object (D,) that gave it; -1 for none.

    Args:
        images, classes, boxes: (D,), (D,), (D, 4), best score first.
        gt_classes: (G,).
    """
    count = len(truth.image_index)
    groups, gt_groups = classes.astype(int) * count + images, gt_classes * count + truth.images
    iou, best = best_objects(boxes, groups, truth.boxes, gt_groups)
    any_iou, any_best = best_objects(boxes, images, truth.boxes, truth.images)
    kinds = np.full(len(boxes), BACKGROUND)
    kinds[any_iou >= BACKGROUND_IOU] = LOCALISATION
    kinds[any_iou >= HIT_IOU] = CLASS
    order, crowds = np.argsort(groups), np.flatnonzero(truth.crowd)
    starts, ends = (
        np.searchsorted(groups, gt_groups[crowds], side, sorter=order) for side in ("left", "right")
    )
    for crowd, start, end in zip(crowds, starts, ends):
        of_group = order[start:end]
        on_crowd = covered_fraction(boxes[of_group], truth.boxes[crowd]) >= CROWD_FRACTION
        kinds[of_group[on_crowd]] = IGNORED
    claiming = np.flatnonzero(iou >= HIT_IOU)
    kinds[claiming] = DUPLICATE
    kinds[claiming[np.unique(best[claiming], return_index=True)[1]]] = HIT
    kinds[claiming[truth.ignored[best[claiming]]]] = IGNORED
    return kinds, np.where(iou >= HIT_IOU, best, any_best)


def rates(hits: np.ndarray, errors: np.ndarray, objects: int) -> dict[str, np.ndarray]:
    """Return precision, recall and F1, (T,) each, in [0, 1]; nan without detections or objects."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": hits / (hits + errors),
            "recall": hits / np.float64(objects),
            "F1": 2 * hits / (hits + errors + objects) if objects else hits * np.nan,
        }


def best_threshold(f1: np.ndarray) -> int:
    """Return the index of the largest F1; of equal ones in a row, the middle one."""
    if np.isnan(f1).all():
        return len(f1) // 2
    equal = np.flatnonzero(f1 == np.nanmax(f1))
    in_a_row = equal[: 1 + np.argmax(np.diff(equal, append=len(f1) + 1) > 1)]
    return int(in_a_row[len(in_a_row) // 2])


def _suggested(f1: np.ndarray) -> float:
    return float(THRESHOLDS[best_threshold(f1)]) if (f1 > 0).any() else np.nan


def _at_least(classes: np.ndarray, scores: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the detections of each class with at least the score of each threshold, (C, T)."""
    steps = np.searchsorted(THRESHOLDS, scores, side="right") - 1
    flat = np.bincount(classes * len(THRESHOLDS) + steps, minlength=num_classes * len(THRESHOLDS))
    return flat.reshape(num_classes, -1)[:, ::-1].cumsum(1)[:, ::-1]


def _confusions(
    kept: tuple[np.ndarray, ...], gt_classes: np.ndarray, ignored: np.ndarray, num_classes: int
) -> list[list[int]]:
    """Return [true class, predicted class, number] of all pairs that occur."""
    kinds, objects, classes = kept
    predicted = np.full(len(gt_classes), num_classes)  # of each object; C: missed
    for kind in (CLASS, HIT):  # a hit counts more; of several confusions, the best-scored
        chosen = np.flatnonzero(kinds == kind)[::-1]
        predicted[objects[chosen]] = classes[chosen]
    on_background = classes[np.isin(kinds, (LOCALISATION, BACKGROUND))]
    true = np.append(gt_classes[~ignored], np.full(len(on_background), num_classes))
    pairs = np.stack([true, np.append(predicted[~ignored], on_background)], axis=1)
    rows, numbers = np.unique(pairs, axis=0, return_counts=True)
    return np.column_stack([rows, numbers]).astype(int).tolist()


def _by_image(
    truth: GroundTruth,
    gt_classes: np.ndarray,
    found: np.ndarray,
    images: np.ndarray,
    boxes: np.ndarray,
    *columns: np.ndarray,
) -> list[dict[str, Any]]:
    """Return objects (x0, y0, x1, y1, class, 0 missed, 1 found or 2 ignored) and detections
    (x0, y0, x1, y1, class, score, kind) of each image, with its file.
    """
    order = np.argsort(images, kind="stable")
    bounds = np.searchsorted(images[order], np.arange(len(truth.image_index) + 1)).tolist()
    corners, columns = boxes[order].round(1).tolist(), [x[order].tolist() for x in columns]
    detections = [
        [*box, category, round(score, 3), kind]
        for box, category, score, kind in zip(corners, *columns)
    ]
    states = np.where(truth.ignored, 2, found).tolist()
    objects = [
        [*box, category, state]
        for box, category, state in zip(truth.boxes.round(1).tolist(), gt_classes.tolist(), states)
    ]
    return [
        {
            "file_name": os.path.abspath(name) if name else "",
            "objects": objects[truth.of_image(n)],
            "detections": detections[bounds[n] : bounds[n + 1]],
        }
        for n, name in enumerate(truth.file_names)
    ]
