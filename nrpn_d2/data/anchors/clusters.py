"""K-means of widths and heights with the distance 1 - IoU, of two boxes with the same centre.

Means are taken of log(size) and log(ratio), with size = sqrt(width x height) and ratio = height /
width: the IoU depends on quotients alone, and sizes x ratios is a grid in these two.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_RESTARTS = 4
_MAX_ITERATIONS = 50
_BINS = 16  # per doubling of a side, to which shapes are merged


class Shapes(NamedTuple):
    """Widths and heights, and how many objects have them."""

    sides: np.ndarray  # (M, 2)
    weights: np.ndarray  # (M,)


def merge_shapes(sides: np.ndarray) -> Shapes:
    """Merge nearly equal widths and heights (N, 2), so that a million objects take no longer."""
    bins = np.floor(np.log2(np.maximum(sides, 1e-3)) * _BINS).astype(np.int64)
    bins -= bins.min(axis=0)
    _, index, counts = np.unique(
        bins[:, 0] * (bins[:, 1].max() + 1) + bins[:, 1], return_inverse=True, return_counts=True
    )
    means = [np.bincount(index, sides[:, axis]) / counts for axis in (0, 1)]
    return Shapes(np.stack(means, axis=1), counts.astype(np.float64))


def shape_iou(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the IoU (M, K) of boxes and anchors with widths and heights (M, 2) and (K, 2)."""
    (width, height), of_anchors = sides.T[:, :, None], anchors.T
    shared = np.minimum(width, of_anchors[0]) * np.minimum(height, of_anchors[1])
    return shared / (width * height + of_anchors[0] * of_anchors[1] - shared)


def mean_best_iou(shapes: Shapes, anchors: np.ndarray) -> float:
    """Return the mean over all objects of the IoU with their best anchor."""
    return float(np.average(shape_iou(shapes.sides, anchors).max(axis=1), weights=shapes.weights))


def fit_shapes(shapes: Shapes, k: int, known: np.ndarray) -> np.ndarray:
    """Return the widths and heights (k, 2) of the best clusters, the smallest first.

    They are not worse than the ``known`` anchors (k, 2).
    """
    rng, points = np.random.default_rng(0), _to_log(shapes.sides)

    def start(restart: int) -> np.ndarray:
        if restart == 0:
            return _to_log(known)
        chosen = [rng.choice(len(shapes.sides), p=shapes.weights / shapes.weights.sum())]
        for _ in range(k - 1):  # k-means++
            far = 1 - shape_iou(shapes.sides, shapes.sides[chosen]).max(axis=1)
            far = np.maximum(far, 0) * shapes.weights + 1e-9
            chosen.append(rng.choice(len(far), p=far / far.sum()))
        return _to_log(shapes.sides[chosen])

    def update(centres: np.ndarray, cluster: np.ndarray, weights: np.ndarray) -> np.ndarray:
        means = [_means(points[:, i], weights, cluster, centres[:, i]) for i in (0, 1)]
        return np.stack(means, axis=1)

    anchors = _to_sides(_best_of_restarts(shapes, start, update))
    return anchors[np.argsort(anchors.prod(axis=1))]


def fit_grid(shapes: Shapes, num_sizes: int, num_ratios: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best sizes and ratios, ascending, whose combinations are the anchors."""
    rng, points = np.random.default_rng(0), _to_log(shapes.sides)
    counts = (num_sizes, num_ratios)

    def start(restart: int) -> np.ndarray:
        axes = []
        for values, count in zip(points.T, counts):
            place = (np.arange(count) + 0.5) / count if restart == 0 else rng.random(count)
            order = np.argsort(values)
            share = np.cumsum(shapes.weights[order]) / shapes.weights.sum()
            quantiles = np.searchsorted(share, np.sort(place)).clip(0, len(share) - 1)
            axes.append(values[order][quantiles])
        return _grid(*axes)

    def update(centres: np.ndarray, cluster: np.ndarray, weights: np.ndarray) -> np.ndarray:
        sizes, ratios = _axes(centres, counts)
        size_of, ratio_of = cluster // num_ratios, cluster % num_ratios
        sizes = _means(points[:, 0], weights, size_of, sizes)
        return _grid(sizes, _means(points[:, 1], weights, ratio_of, ratios))

    sizes, ratios = _axes(_best_of_restarts(shapes, start, update), counts)
    return np.sort(np.exp(sizes)), np.sort(np.exp(ratios))


def grid_shapes(sizes: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Return the widths and heights (S * R, 2) of all combinations, as Detectron2 orders them."""
    return _to_sides(_grid(np.log(sizes), np.log(ratios)))


def _best_of_restarts(shapes: Shapes, start: Callable, update: Callable) -> np.ndarray:
    best, best_iou = None, -1.0
    for restart in range(_RESTARTS):
        centres, before = start(restart), None
        for _ in range(_MAX_ITERATIONS):
            iou = shape_iou(shapes.sides, _to_sides(centres))
            cluster = iou.argmax(axis=1)
            best_of_each = np.take_along_axis(iou, cluster[:, None], axis=1)[:, 0]
            mean = np.average(best_of_each, weights=shapes.weights)
            if mean > best_iou:  # an update may also lower it
                best, best_iou = centres, mean
            if before is not None and (cluster == before).all():
                break
            # The IoU as a weight: outliers, which no cluster reaches anyway, move it less
            weights = shapes.weights * best_of_each
            centres, before = update(centres, cluster, weights), cluster
    return best


def _means(
    values: np.ndarray, weights: np.ndarray, cluster: np.ndarray, old: np.ndarray
) -> np.ndarray:
    """Return the mean of each cluster; of an empty one, the old value."""
    total = np.bincount(cluster, weights, len(old))
    sums = np.bincount(cluster, weights * values, len(old))
    return np.divide(sums, total, out=old.copy(), where=total > 0)


def _to_log(sides: np.ndarray) -> np.ndarray:
    width, height = np.log(np.maximum(sides, 1e-3)).T
    return np.stack([(width + height) / 2, height - width], axis=1)


def _to_sides(points: np.ndarray) -> np.ndarray:
    size, ratio = points.T
    return np.exp(np.stack([size - ratio / 2, size + ratio / 2], axis=1))


def _grid(sizes: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    return np.stack([np.repeat(sizes, len(ratios)), np.tile(ratios, len(sizes))], axis=1)


def _axes(centres: np.ndarray, counts: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    table = centres.reshape(*counts, 2)
    return table[:, 0, 0].copy(), table[0, :, 1].copy()
