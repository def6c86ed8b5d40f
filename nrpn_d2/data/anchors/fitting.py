"""Anchors that fit objects, for several k, as the sizes x ratios that Detectron2 takes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .clusters import Shapes, fit_grid, fit_shapes, grid_shapes, mean_best_iou, merge_shapes
from .reach import AnchorLevel, best_ious, reached
from .seen import SeenObjects


class Quality(NamedTuple):
    """How well anchors fit objects."""

    mean_iou: float  # with the best anchor, both with the same centre: the shape alone
    reached: tuple[float, ...]  # fractions of the objects, on the grid of the feature maps


class FittedAnchors(NamedTuple):
    """The anchors for one k."""

    k: int
    free: Quality  # of k clusters
    sizes: list[list[float]]  # one list per level
    ratios: list[float]  # height / width
    levels: list[AnchorLevel]  # with the anchors sizes x ratios
    grid: Quality  # of these


def fit_anchors(
    objects: SeenObjects, levels: Sequence[AnchorLevel], ks: Sequence[int]
) -> list[FittedAnchors]:
    """Fit anchors for each k that all levels can share equally.

    With several levels, the smallest anchors go to the first. Detectron2's head needs the same
    number on each.

    Args:
        levels: those of the model, in the order of their strides; their anchors do not matter.
        ks: numbers of anchors, of all levels together.

    Raises:
        ValueError: no k is a multiple of the number of levels, or there are fewer different shapes
            than the largest k.
    """
    shared = [k for k in ks if k % len(levels) == 0]
    if not shared:
        raise ValueError(f"--k needs a multiple of {len(levels)}, the number of feature maps")
    extent = objects.shapes
    fits = (extent > 0).all(axis=1)
    objects = SeenObjects(objects.boxes[fits], objects.image_sizes[fits])
    shapes = merge_shapes(extent[fits]) if fits.any() else Shapes(extent[:0], np.empty(0))
    count, largest = len(shapes.sides), max(shared)
    if count < largest:
        raise ValueError(f"{count} objects of different shape are too few for {largest} anchors")
    return [_fit(objects, shapes, levels, k) for k in shared]


def quality(objects: SeenObjects, shapes: Shapes, levels: Sequence[AnchorLevel]) -> Quality:
    """Measure anchors."""
    anchors = np.concatenate([level.shapes for level in levels])
    best = best_ious(objects, levels).max(axis=1)
    return Quality(mean_best_iou(shapes, anchors), reached(best))


def _fit(
    objects: SeenObjects, shapes: Shapes, levels: Sequence[AnchorLevel], k: int
) -> FittedAnchors:
    per_level = k // len(levels)
    grids = []
    for num_ratios in (n for n in range(1, per_level + 1) if per_level % n == 0):
        sizes, ratios = fit_grid(shapes, k // num_ratios, num_ratios)
        # The figures are to be those of what is pasted
        sizes, ratios = sizes.round(1).clip(0.1), ratios.round(2).clip(0.01)
        grids.append((mean_best_iou(shapes, grid_shapes(sizes, ratios)), sizes, ratios))
    _, sizes, ratios = max(grids, key=lambda grid: grid[0])
    free = np.split(fit_shapes(shapes, k, grid_shapes(sizes, ratios)), len(levels))
    free_levels = [level.with_shapes(part) for level, part in zip(levels, free)]
    of_levels = np.split(sizes, len(levels))
    grid = [level.with_shapes(grid_shapes(s, ratios)) for level, s in zip(levels, of_levels)]
    return FittedAnchors(
        k,
        quality(objects, shapes, free_levels),
        [part.tolist() for part in of_levels],
        ratios.tolist(),
        grid,
        quality(objects, shapes, grid),
    )


def knee(ks: Sequence[int], mean_ious: Sequence[float]) -> int:
    """Return the k after which more anchors gain little.

    It is the one that lies highest above the straight line from the first point to the last.
    """
    x, y = np.asarray(ks, float), np.asarray(mean_ious, float)
    if len(x) < 3:
        return int(ks[-1])
    line = y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0])
    return int(ks[int(np.argmax(y - line))])
