"""Boxes as numpy arrays (..., 4): x0, y0, x1, y1 in pixels of the original image."""

import numpy as np


def box_iou(a, b, border=0.0):
    """
    Intersection over union; the leading axes broadcast.

    Args:
        a, b (ndarray): boxes (..., 4).
        border (float): what a side adds to ``x1 - x0``. 0 for continuous coordinates, 1 for the
            inclusive pixel indices of the PASCAL VOC devkit.

    Returns:
        ndarray: (...), float64; 0 for two boxes without area.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    intersection = _intersection(a, b, border)
    union = box_area(a, border) + box_area(b, border) - intersection
    return _ratio(intersection, union)


def covered_fraction(a, b):
    """The fraction (...) of the area of ``a`` that lies on ``b``; otherwise as :func:`box_iou`."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    intersection = _intersection(a, b)
    return _ratio(intersection, np.broadcast_to(box_area(a), intersection.shape))


def _intersection(a, b, border=0.0):
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + border
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + border
    return np.maximum(width, 0.0) * np.maximum(height, 0.0)


def _ratio(part, whole):
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def box_area(boxes, border=0.0):
    """Areas (...) of boxes (..., 4); ``border`` as in :func:`box_iou`."""
    width = boxes[..., 2] - boxes[..., 0] + border
    return width * (boxes[..., 3] - boxes[..., 1] + border)


def check_boxes(boxes, scores, origin):
    """
    Raise a ValueError that starts with ``origin`` unless boxes (M, 4) and scores (M,) are finite
    and no side is negative.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"{origin}: wants boxes (M, 4) and scores (M,), got {boxes.shape} and {scores.shape}"
        )
    upright = boxes[:, 2:] >= boxes[:, :2]  # false for NaN, too
    if upright.all() and np.isfinite(boxes.sum()) and np.isfinite(scores.sum()):
        return
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if not finite.all():
        m = int(np.argmin(finite))
        raise ValueError(
            f"{origin}: box {m} is {boxes[m].tolist()} with score {scores[m]}; "
            "a NaN or infinity usually means that training diverged"
        )
    if not upright.all():
        m = int(np.argmin(upright.all(axis=1)))
        raise ValueError(
            f"{origin}: box {m} is {boxes[m].tolist()}, its width or height is negative; "
            "boxes are x0, y0, x1, y1"
        )
