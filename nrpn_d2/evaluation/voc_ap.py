"""Average precision as PASCAL VOC defines it.

Shape shorthand in this module:

    D: detections, G: annotated objects, over all images
    C: classes, T: IoU thresholds

The VOC devkit counts pixels: its boxes are inclusive, one-based indices and a side is
``xmax - xmin + 1``. Detectron2 reads ``xmin - 1, ymin - 1, xmax, ymax``, for which the same side is
``x1 - x0``: the plain IoU of these boxes is the devkit's IoU.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..utils.boxes import box_iou
from .ground_truth import GroundTruth

METRICS = ("11point", "area")


class PrecisionRecall(NamedTuple):
    """One point for each detection that counts, best score first: two arrays (D',)."""

    recall: np.ndarray
    precision: np.ndarray


def best_objects(
    boxes: np.ndarray, groups: np.ndarray, gt_boxes: np.ndarray, gt_groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the object of its group (image and class) that each detection (D, 4) overlaps most.

    Returns:
        (D,) IoU, -inf without an object; (D,) index in [0, G), -1 without one. The first of equals
        wins.
    """
    by_group = np.argsort(gt_groups, kind="stable")
    start = np.searchsorted(gt_groups[by_group], groups)
    counts = np.searchsorted(gt_groups[by_group], groups, "right") - start
    first_pair = np.cumsum(counts) - counts
    # All pairs of one group, flat: detection 0 with each of its objects, detection 1 with ...
    detection = np.repeat(np.arange(len(boxes)), counts)
    within = np.arange(len(detection)) - first_pair[detection]
    candidate = by_group[start[detection] + within]
    iou = box_iou(boxes[detection], gt_boxes[candidate])

    best_iou = np.full(len(boxes), -np.inf)
    best = np.full(len(boxes), -1)
    has_objects = counts > 0
    if has_objects.any():
        best_iou[has_objects] = np.maximum.reduceat(iou, first_pair[has_objects])
        # numpy keeps the last of several assignments, so the first of equals goes last
        winners = np.flatnonzero(iou == best_iou[detection])[::-1]
        best[detection[winners]] = candidate[winners]
    return best_iou, best


def precision_recall(claims: np.ndarray, ignored: np.ndarray, num_objects: int) -> PrecisionRecall:
    """Follow precision and recall down the scores.

    Args:
        claims: (D,) index in [0, G) of the object that a detection covers, best score first; -1 if
            none.
        ignored: (G,) bool. A detection that covers an ignored (difficult) object counts neither as
            true nor as false positive and is left out.
        num_objects: objects to be found.

    Returns:
        of several detections that cover one object, the first is right.
    """
    claims = claims[(claims < 0) | ~ignored[claims]] if len(ignored) else claims
    covering = np.flatnonzero(claims >= 0)
    true = np.zeros(len(claims), bool)
    true[covering[np.unique(claims[covering], return_index=True)[1]]] = True
    hits = np.cumsum(true)
    with np.errstate(invalid="ignore", divide="ignore"):
        return PrecisionRecall(hits / num_objects, hits / np.arange(1, len(true) + 1))


def precision_at(curve: PrecisionRecall, levels: np.ndarray) -> np.ndarray:
    """Return the best precision at each recall level or more; 0 beyond the largest recall."""
    return envelope(curve)[np.searchsorted(curve.recall, levels)]


def envelope(curve: PrecisionRecall) -> np.ndarray:
    """Return the best precision at the recall of each point or more; a last 0 beyond them all."""
    return np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)


def average_precision(curve: PrecisionRecall, metric: str) -> float:
    """Return the AP, in [0, 1], of a class with at least one object.

    Args:
        metric: "11point" (VOC 2007): the mean, over recall 0, 0.1, ..., 1, of the best precision
            at that recall or more. "area" (from VOC 2010): the area under that envelope.
    """
    if metric == "11point":
        return float(np.mean(precision_at(curve, np.arange(11) / 10)))
    recalls = np.concatenate(([0.0], curve.recall, [1.0]))
    step = np.flatnonzero(recalls[1:] != recalls[:-1])
    return float(np.sum(np.diff(recalls)[step] * envelope(curve)[step]))


def evaluate_detections(
    detections: tuple[np.ndarray, ...], ground_truth: GroundTruth, thresholds: Sequence[float]
) -> tuple[dict[str, np.ndarray], list[PrecisionRecall]]:
    """Compute the AP of each class.

    Args:
        detections: image numbers (D,), classes (D,), scores (D,) and boxes (D, 4).
        thresholds: T IoU thresholds; a detection of exactly that IoU is right.

    Returns:
        metric -> AP (C, T) in [0, 1], nan for a class without an object to be found; and the
        curve of each class at the first threshold.
    """
    images, classes, scores, boxes = detections
    num_images, num_classes = len(ground_truth.image_index), len(ground_truth.class_names)
    ignored, gt_classes = ground_truth.ignored, ground_truth.classes
    groups = classes.astype(int) * num_images + images
    gt_groups = gt_classes * num_images + ground_truth.images
    iou, best = best_objects(boxes, groups, ground_truth.boxes, gt_groups)
    ap = {metric: np.full((num_classes, len(thresholds)), np.nan) for metric in METRICS}
    first = []
    for c in range(num_classes):
        members = np.flatnonzero(classes == c)
        # Equal scores: by image, so that the result depends on no order of arrival
        members = members[np.lexsort((images[members], -scores[members]))]
        num_objects = int(np.sum((gt_classes == c) & ~ignored))
        claims = [np.where(iou[members] >= t, best[members], -1) for t in thresholds]
        curves = [precision_recall(at_t, ignored, num_objects) for at_t in claims]
        first.append(curves[0])
        for metric in METRICS if num_objects else ():
            ap[metric][c] = [average_precision(curve, metric) for curve in curves]
    return ap, first
