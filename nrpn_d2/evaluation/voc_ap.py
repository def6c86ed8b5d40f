"""
Average precision as PASCAL VOC defines it.

Shape shorthand in this module:

    D: detections, G: annotated objects, over all images
    C: classes, T: IoU thresholds

The VOC devkit counts pixels: its boxes are inclusive, one-based indices and a side is
``xmax - xmin + 1``. Detectron2 reads ``xmin - 1, ymin - 1, xmax, ymax``, for which the same side is
``x1 - x0``: the plain IoU of these boxes is the devkit's IoU.
"""

from typing import NamedTuple

import numpy as np

from .boxes import box_iou

METRICS = ("11point", "area")


class PrecisionRecall(NamedTuple):
    """One point for each detection that counts, best score first: three arrays (D',)."""

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray


class Detections(NamedTuple):
    """Arrays of D detections: image numbers, classes, scores and boxes (D, 4)."""

    images: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


def best_objects(boxes, groups, gt_boxes, gt_groups, border=0.0):
    """
    For each detection, the object of its group (image and class) that it overlaps most.

    Args:
        boxes (ndarray): (D, 4) detections. groups (ndarray): (D,) int.
        gt_boxes (ndarray): (G, 4) objects. gt_groups (ndarray): (G,) int.
        border (float): see :func:`box_iou`.

    Returns:
        ndarray, ndarray: (D,) IoU, -inf without an object; (D,) index in [0, G), -1 without one.
        The first of equals wins.
    """
    by_group = np.argsort(gt_groups, kind="stable")
    start = np.searchsorted(gt_groups[by_group], groups)
    counts = np.searchsorted(gt_groups[by_group], groups, "right") - start
    first_pair = np.cumsum(counts) - counts
    # All pairs of one group, flat: detection 0 with each of its objects, detection 1 with ...
    detection = np.repeat(np.arange(len(boxes)), counts)
    within = np.arange(len(detection)) - first_pair[detection]
    candidate = by_group[start[detection] + within]
    iou = box_iou(boxes[detection], gt_boxes[candidate], border)

    best_iou = np.full(len(boxes), -np.inf)
    best = np.full(len(boxes), -1)
    has_objects = counts > 0
    if has_objects.any():
        best_iou[has_objects] = np.maximum.reduceat(iou, first_pair[has_objects])
        # numpy keeps the last of several assignments, so the first of equals goes last.
        winners = np.flatnonzero(iou == best_iou[detection])[::-1]
        best[detection[winners]] = candidate[winners]
    return best_iou, best


def precision_recall(scores, claims, ignored, num_objects):
    """
    Args:
        scores (ndarray): (D,) descending.
        claims (ndarray): (D,) index in [0, G) of the object that a detection covers; -1 if none.
        ignored (ndarray): (G,) bool. A detection that covers an ignored (difficult) object counts
            neither as true nor as false positive and is left out.
        num_objects (int): objects to be found.

    Returns:
        PrecisionRecall: of several detections that cover one object, the first is right.
    """
    counts = (claims < 0) | ~ignored[claims] if len(ignored) else np.ones(len(claims), bool)
    scores, claims = scores[counts], claims[counts]
    covering = np.flatnonzero(claims >= 0)
    true = np.zeros(len(claims), bool)
    true[covering[np.unique(claims[covering], return_index=True)[1]]] = True
    found = np.cumsum(true)
    with np.errstate(invalid="ignore", divide="ignore"):
        return PrecisionRecall(found / num_objects, found / np.arange(1, len(true) + 1), scores)


def average_precision(curve, metric, levels=np.arange(11) / 10):
    """
    Args:
        curve (PrecisionRecall): of a class with at least one object.
        metric (str): "11point" (VOC 2007): the mean, over the recall levels, of the best precision
            at that recall or more. "area" (from VOC 2010): the area under that envelope.
        levels (ndarray): the eleven recall levels.

    Returns:
        float: in [0, 1].
    """
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    if metric == "11point":
        at = np.searchsorted(curve.recall, levels)
        precisions = np.append(envelope, 0.0)[np.minimum(at, len(envelope))]
        return float(np.cumsum(precisions / 11.0)[-1])
    if metric == "area":
        recalls = np.concatenate(([0.0], curve.recall, [1.0]))
        step = np.flatnonzero(recalls[1:] != recalls[:-1])
        return float(np.sum((recalls[step + 1] - recalls[step]) * np.append(envelope, 0.0)[step]))
    raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")


def evaluate_detections(detections, ground_truth, thresholds):
    """
    Args:
        detections (Detections): of all images.
        ground_truth (GroundTruth):
        thresholds (Sequence[float]): T IoU thresholds; a detection of exactly that IoU is right.

    Returns:
        dict, list: metric -> AP (C, T) in [0, 1], nan for a class without an object to be found;
        and the PrecisionRecall of each class at the first threshold.
    """
    shape = len(ground_truth.class_names), len(thresholds)
    ap = {metric: np.full(shape, np.nan) for metric in METRICS}
    present, first = _present(ground_truth), []
    by_class = _curves(detections, ground_truth, thresholds, border=0.0, inclusive=True)
    for c, curves in enumerate(by_class):
        first.append(curves[0])
        for metric in METRICS if present[c] else ():
            ap[metric][c] = [average_precision(curve, metric) for curve in curves]
    return ap, first


def _present(ground_truth):
    """(C,) bool, the classes with an object to be found."""
    to_find = ground_truth.classes[~ground_truth.ignored]
    return np.isin(np.arange(len(ground_truth.class_names)), to_find)


def evaluate_as_detectron2(detections, ground_truth, thresholds):
    """
    The numbers of Detectron2's ``PascalVOCDetectionEvaluator``, to the last digit.

    It writes scores with three decimals and one-based corners with one, counts a detection only
    if its IoU is above the threshold, compares recall to levels that are sums of rounded tenths,
    and gives 0 (11 points) or nan (area, if anything was detected) to a class without objects.

    Args, Returns: as :func:`evaluate_detections`.
    """
    corner = np.array([1, 1, 0, 0], np.float32)
    rounded = Detections(
        detections.images,
        detections.classes,
        _round(detections.scores, 1000),
        _round(detections.boxes + corner, 10),
    )
    shape = len(ground_truth.class_names), len(thresholds)
    ap = {metric: np.zeros(shape) for metric in METRICS}
    present, first = _present(ground_truth), []
    ap["area"][np.isin(np.arange(len(present)), detections.classes) & ~present] = np.nan
    levels = np.arange(0.0, 1.1, 0.1)
    by_class = _curves(
        rounded,
        ground_truth,
        thresholds,
        border=1.0,
        inclusive=False,
        gt_boxes=ground_truth.boxes + corner,
    )
    for c, curves in enumerate(by_class):
        first.append(curves[0])
        if present[c]:
            ap["11point"][c] = [average_precision(curve, "11point", levels) for curve in curves]
            ap["area"][c] = [average_precision(curve, "area") for curve in curves]
    return ap, first


def _round(values, steps):
    """To the nearest 1 / steps, in float64."""
    values = values * np.float64(steps)
    np.rint(values, out=values)
    values /= steps
    return values


def _curves(detections, ground_truth, thresholds, border, inclusive, gt_boxes=None):
    """Of one class after the other, the PrecisionRecall at each of T thresholds; yields lists."""
    num_images = len(ground_truth.image_index)
    iou, best = best_objects(
        detections.boxes,
        detections.classes.astype(int) * num_images + detections.images,
        ground_truth.boxes if gt_boxes is None else gt_boxes,
        ground_truth.classes * num_images + ground_truth.images,
        border,
    )
    for c in range(len(ground_truth.class_names)):
        members = np.flatnonzero(detections.classes == c)
        scores = detections.scores[members]
        if inclusive:  # equal scores: by image, so that the result depends on no order of arrival
            order = np.lexsort((detections.images[members], -scores))
        else:  # equal scores are frequent after rounding: the very sort of Detectron2
            order = np.argsort(-scores)
        members = members[order]
        num_objects = int(np.sum((ground_truth.classes == c) & ~ground_truth.ignored))
        curves = []
        for t in thresholds:
            covers = iou[members] >= t if inclusive else iou[members] > t
            claims = np.where(covers, best[members], -1)
            curves.append(
                precision_recall(scores[order], claims, ground_truth.ignored, num_objects)
            )
        yield curves
