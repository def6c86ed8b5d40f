"""Anchors and ground truth -> labels: objects, background, and what is ignored.

R anchors per image; labels are 1 (object), 0 (background), -1 (ignored).
"""
from typing import List, Tuple

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances, pairwise_ioa, pairwise_iou
from detectron2.utils.memory import retry_if_cuda_oom


@torch.no_grad()
def label_anchors(
    anchors: Boxes,
    gt_instances: List[Instances],
    matcher: Matcher,
    *,
    ignore_ioa: float,
    boundary_thresh: float = -1,
) -> Tuple[torch.Tensor, torch.Tensor, List[torch.Tensor]]:
    """Match all anchors with the objects of each image; nothing is sampled yet.

    An object of class -1 is a difficult one: it is no object to match, and background anchors on
    it are ignored, since such objects would look like the hardest negatives of all. "On it" means
    an IoU that the matcher does not call background, or ``ignore_ioa`` of the anchor's own area
    (a small anchor in a large object has a small IoU).

    Args:
        anchors: R boxes, the same for all images.
        gt_instances: N ``Instances`` with ``gt_boxes`` and ``gt_classes``.
        matcher: of the RPN.
        ignore_ioa: fraction of an anchor's area.
        boundary_thresh: anchors that reach this many pixels or more out of the image are ignored;
            a negative number turns that off, as is Detectron2's default.

    Returns:
        (N, R) labels; (N, R) IoUs with the object that an anchor overlaps most, 0 without objects;
        N tensors (R, 4), the box of that object, undefined where the label is not 1.
    """
    labels, ious, gt_boxes = [], [], []
    for gt in gt_instances:
        difficult = gt.gt_classes < 0
        objects = gt.gt_boxes[~difficult]
        quality = retry_if_cuda_oom(pairwise_iou)(objects, anchors)  # (objects, R)
        matched, label = retry_if_cuda_oom(matcher)(quality)
        if len(objects) > 0:
            iou = quality.gather(0, matched[None])[0]
            gt_box = objects.tensor[matched.to(objects.device)]
        else:
            iou = torch.zeros_like(anchors.tensor[:, 0])
            gt_box = torch.zeros_like(anchors.tensor)
        # Where the GPU's memory was too small these come from the CPU
        label, iou = label.to(objects.device), iou.to(objects.device)
        if len(objects) < len(gt):
            on_difficult = _overlap(gt.gt_boxes[difficult], anchors, matcher, ignore_ioa)
            label.masked_fill_((label == 0) & on_difficult, -1)
        if boundary_thresh >= 0:
            label[~anchors.inside_box(gt.image_size, boundary_thresh)] = -1
        labels.append(label)
        ious.append(iou)
        gt_boxes.append(gt_box)
    return torch.stack(labels), torch.stack(ious), gt_boxes


def _overlap(boxes: Boxes, anchors: Boxes, matcher: Matcher, ignore_ioa: float) -> torch.Tensor:
    """(R,) bool: the anchors on any of the boxes."""
    background_iou = matcher.thresholds[1]  # thresholds[0] is -inf
    near = pairwise_iou(boxes, anchors) >= background_iou
    inside = pairwise_ioa(boxes, anchors) >= ignore_ioa
    return (near | inside).any(dim=0)
