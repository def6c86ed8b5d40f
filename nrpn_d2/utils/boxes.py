"""Boxes as numpy arrays (..., 4): x0, y0, x1, y1 in pixels of the original image."""

import numpy as np


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union (...) of boxes (..., 4); the leading axes broadcast.

    Returns:
        float64; 0 for two boxes without area.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    intersection = _intersection(a, b)
    return _ratio(intersection, box_area(a) + box_area(b) - intersection)


def covered_fraction(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the fraction (...) of the area of ``a`` that lies on ``b``; else as box_iou."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return _ratio(_intersection(a, b), box_area(a))


def lies_off(
    boxes: np.ndarray, labels: np.ndarray, ignored: np.ndarray, max_iou: float, max_covered: float
) -> np.ndarray:
    """Return (K,) bool: which boxes (K, 4) lie off all labels (G, 4).

    Args:
        ignored: (G,) bool.
        max_iou: of such a box with any label, which stays below it.
        max_covered: the fraction of it that any ignored label covers, which stays below it.
    """
    off = (box_iou(boxes[:, None], labels) < max_iou).all(axis=1)
    return off & (covered_fraction(boxes[:, None], labels[ignored]) < max_covered).all(axis=1)


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (...) of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return np.maximum(width, 0.0) * np.maximum(height, 0.0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def check_boxes(boxes: np.ndarray, scores: np.ndarray, origin: str) -> None:
    """Check that boxes (M, 4) and scores (M,) are finite and that no side is negative.

    Raises:
        ValueError: starts with ``origin`` and names the first wrong box.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        shapes = f"{boxes.shape} and {scores.shape}"
        raise ValueError(f"{origin}: expected boxes (M, 4) and scores (M,), got {shapes}")
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if not finite.all():
        m = int(np.argmin(finite))
        message = f"{origin}: box {m} is {boxes[m].tolist()} with score {scores[m]}"
        raise ValueError(f"{message}; a NaN or infinity usually means that training diverged")
    upright = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    if not upright.all():
        m = int(np.argmin(upright))
        message = f"{origin}: box {m} is {boxes[m].tolist()}, its width or height is negative"
        raise ValueError(f"{message}; boxes are x0, y0, x1, y1")
