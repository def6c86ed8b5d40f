"""The objects of dataset dicts, at the scale at which the network sees them in training."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode

from ..reading import absolute_box, is_ignored


class SeenObjects(NamedTuple):
    """N objects to learn, in pixels of the resized images."""

    boxes: np.ndarray  # (N, 4) float32: x0, y0, x1, y1
    image_sizes: np.ndarray  # (N, 2) float32: width and height of the image of each object

    @property
    def shapes(self) -> np.ndarray:
        """The widths and heights (N, 2)."""
        return self.boxes[:, 2:] - self.boxes[:, :2]


def seen_objects(records: Iterable[dict[str, Any]], cfg: CfgNode) -> SeenObjects:
    """Return the objects after the resizing of training; difficult and crowd objects are left out.

    Where training draws the short side of each image (several ``INPUT.MIN_SIZE_TRAIN``), one is
    drawn here, always the same. Crops (``INPUT.CROP``) are left out.

    Args:
        records: Detectron2's dataset dicts with "width" and "height".
    """
    boxes, image_of_box, sizes = [], [], []
    for record in records:
        for annotation in record.get("annotations", ()):
            if not is_ignored(annotation):
                boxes.append(absolute_box(annotation))
                image_of_box.append(len(sizes))
        sizes.append((record["width"], record["height"]))
    sizes = np.array(sizes, np.float64).reshape(-1, 2)
    seen = resized(sizes, _short_sides(cfg, len(sizes)), cfg.INPUT.MAX_SIZE_TRAIN)
    scale = np.tile(seen / sizes, 2)[image_of_box]
    boxes = np.array(boxes, np.float64).reshape(-1, 4) * scale
    return SeenObjects(boxes.astype(np.float32), seen[image_of_box].astype(np.float32))


def resized(sizes: np.ndarray, short: np.ndarray, longest: int) -> np.ndarray:
    """Return sizes (N, 2) after Detectron2's ``ResizeShortestEdge``.

    Args:
        short: the wanted shorter sides (N,); 0 leaves an image as it is.
        longest: the largest longer side; it has precedence.
    """
    scale = np.minimum(short / sizes.min(axis=1), longest / sizes.max(axis=1))
    return np.where(short[:, None] > 0, np.floor(sizes * scale[:, None] + 0.5), sizes)


def _short_sides(cfg: CfgNode, count: int) -> np.ndarray:
    sides, rng = cfg.INPUT.MIN_SIZE_TRAIN, np.random.default_rng(0)
    sides = [sides] if isinstance(sides, int) else list(sides)
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range":
        return rng.integers(sides[0], sides[1] + 1, count)
    return rng.choice(sides, count)
