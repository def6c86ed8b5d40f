"""Objects to ignore: difficult ones (VOC) and crowds (COCO), carried beside the ground truth.

They are no part of it, so that any ROI head can match proposals to it. A class of -1, Detectron2's
mark for such objects, is understood by some heads only: those of Cascade R-CNN fail on it.
"""

import torch
from detectron2.structures import Boxes, Instances


class GroundTruth(Instances):
    """The objects of an image and, out of sight of ``Instances``, the boxes to ignore."""

    def __init__(self, image_size: tuple[int, int], ignored_boxes: Boxes, **fields):
        super().__init__(image_size, **fields)
        object.__setattr__(self, "ignored_boxes", ignored_boxes)  # Instances' own adds a field

    def to(self, *args, **kwargs) -> "GroundTruth":
        fields = super().to(*args, **kwargs).get_fields()
        return GroundTruth(self.image_size, self.ignored_boxes.to(*args, **kwargs), **fields)

    def __getitem__(self, item) -> "GroundTruth":
        """Index the objects; all boxes to ignore stay."""
        fields = super().__getitem__(item).get_fields()
        return GroundTruth(self.image_size, self.ignored_boxes, **fields)


def ignored_boxes(gt: Instances) -> Boxes:
    """Return the boxes to ignore in an image; plain ``Instances`` have none."""
    return getattr(gt, "ignored_boxes", gt.gt_boxes[:0])


def set_ignored_aside(gt: Instances) -> GroundTruth:
    """Return ground truth whose objects of class -1 are boxes to ignore instead."""
    is_ignored = gt.gt_classes < 0
    ignored = Boxes.cat([ignored_boxes(gt), gt.gt_boxes[is_ignored]])
    return GroundTruth(gt.image_size, ignored, **gt[~is_ignored].get_fields())


def set_all_ignored_aside(gts: list[Instances]) -> None:
    """Apply :func:`set_ignored_aside` in place to images with objects of class -1."""
    # Counted for all images at once: here the host waits for a GPU
    counts = torch.stack([(gt.gt_classes < 0).sum() for gt in gts]).tolist()
    for i, count in enumerate(counts):
        if count > 0:
            gts[i] = set_ignored_aside(gts[i])
