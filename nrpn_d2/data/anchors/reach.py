"""The best IoU of each object with the anchors, where these stand: on the grid of each feature map.

An anchor whose shape fits an object exactly may stand up to half a stride beside it, in each
direction: for small objects that costs more than an ill-fitting shape.
"""

from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.modeling import build_anchor_generator, build_backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from .seen import SeenObjects

REACHED = (0.5, 0.7)  # IoU with an anchor from which on an object counts as reached
MAX_OUT_OF_REACH = 0.1  # fraction of the objects


class AnchorLevel(NamedTuple):
    """The anchors of one feature map."""

    stride: int  # pixels between neighbouring anchors
    anchors: np.ndarray  # (A, 4) x0, y0, x1, y1 around the place of the anchors
    offset: float = 0.5  # of the first place from the corner of the image, in strides

    def with_shapes(self, shapes: np.ndarray) -> "AnchorLevel":
        """Return a level with anchors of these widths and heights (A, 2) instead."""
        return self._replace(anchors=np.concatenate([-shapes / 2, shapes / 2], axis=1))

    @property
    def shapes(self) -> np.ndarray:
        """The widths and heights (A, 2)."""
        return self.anchors[:, 2:] - self.anchors[:, :2]


def anchor_levels(generator: DefaultAnchorGenerator) -> list[AnchorLevel]:
    """Return the anchors of a model."""
    anchors = [level.cpu().numpy() for level in generator.cell_anchors]
    strides = generator.strides
    return [AnchorLevel(s, a, generator.offset) for s, a in zip(strides, anchors)]


def config_levels(cfg: CfgNode) -> list[AnchorLevel]:
    """Return the anchors of the model that a config describes.

    Raises:
        ValueError: it has anchors of another kind, such as rotated ones.
    """
    features = build_backbone(cfg).output_shape()
    generator = build_anchor_generator(cfg, [features[f] for f in cfg.MODEL.RPN.IN_FEATURES])
    if not isinstance(generator, DefaultAnchorGenerator):
        name = cfg.MODEL.ANCHOR_GENERATOR.NAME
        raise ValueError(f"MODEL.ANCHOR_GENERATOR.NAME is {name!r}, not 'DefaultAnchorGenerator'")
    return anchor_levels(generator)


def best_ious(objects: SeenObjects, levels: list[AnchorLevel]) -> np.ndarray:
    """Return the best IoU (N, L) of each object with the anchors of each level.

    The feature map of an image of W pixels is ceil(W / stride) cells wide.
    """
    return np.stack([_best_on_level(objects, level) for level in levels], axis=1)


def _best_on_level(objects: SeenObjects, level: AnchorLevel) -> np.ndarray:
    """Compare each object with the nearest anchor of each shape.

    Of anchors of one shape the nearest in x and in y has the largest overlap, and so the best IoU.
    """
    stride = np.float32(level.stride)
    last = np.ceil(objects.image_sizes / stride) - 1
    sides = objects.shapes
    centres = objects.boxes[:, :2] + sides / 2
    area = sides.prod(axis=1)
    best = np.zeros(len(sides), np.float32)
    for anchor in level.anchors.astype(np.float32):
        anchor_sides = anchor[2:] - anchor[:2]
        first = (anchor[:2] + anchor[2:]) / 2 + np.float32(level.offset) * stride
        cells = np.clip(np.rint((centres - first) / stride), 0, last)
        distance = np.abs(first + cells * stride - centres)
        overlap = np.minimum((sides + anchor_sides) / 2 - distance, np.minimum(sides, anchor_sides))
        shared = np.maximum(overlap, 0).prod(axis=1)
        np.maximum(best, shared / (area + anchor_sides.prod() - shared), out=best)
    return best


def reached(best: np.ndarray) -> tuple[float, ...]:
    """Return the fraction of objects whose best IoU (N,) is at least each of ``REACHED``."""
    return tuple(float((best >= iou).mean()) if len(best) else float("nan") for iou in REACHED)
