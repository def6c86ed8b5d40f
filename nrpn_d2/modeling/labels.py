"""Anchors and ground truth -> labels: 1 (object), 0 (background), -1 (ignored)."""

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances, pairwise_ioa
from detectron2.utils import comm
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor

from .ignored import ignored_boxes


@torch.no_grad()
def label_anchors(
    anchors: Boxes,
    gt_instances: list[Instances],
    matcher: Matcher,
    ignore_ioa: float,
    boundary_thresh: float = -1,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Match all anchors with the objects of each image; nothing is sampled yet.

    Background anchors on a box to ignore (a difficult object) are ignored, since such objects would
    look like the hardest negatives of all. "On it" means an IoU that the matcher does not call
    background, or ``ignore_ioa`` of the anchor's own area (a small anchor in a large object has a
    small IoU).

    Args:
        anchors: R boxes, the same for all images.
        gt_instances: N ``Instances`` with ``gt_boxes``, or ``GroundTruth`` (see ignored.py).
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
        objects, ignored = gt.gt_boxes, ignored_boxes(gt)
        quality = retry_if_cuda_oom(iou_matrix)(objects, anchors)  # (objects, R)
        matched, label = retry_if_cuda_oom(matcher)(quality)
        if len(objects) > 0:
            iou = quality.gather(0, matched[None])[0]
            gt_box = objects.tensor[matched.to(objects.device)]
        else:
            iou = torch.zeros_like(anchors.tensor[:, 0])
            gt_box = torch.zeros_like(anchors.tensor)
        # Where the GPU's memory was too small these come from the CPU
        label, iou = label.to(objects.device), iou.to(objects.device)
        if len(ignored) > 0:
            background_iou = matcher.thresholds[1]  # the first is -inf
            on_ignored = _lie_on(ignored, anchors, background_iou, ignore_ioa)
            label.masked_fill_((label == 0) & on_ignored, -1)
        if boundary_thresh >= 0:
            label[~anchors.inside_box(gt.image_size, boundary_thresh)] = -1
        labels.append(label)
        ious.append(iou)
        gt_boxes.append(gt_box)
    return torch.stack(labels), torch.stack(ious), gt_boxes


def mean_positives(labels: Tensor) -> Tensor:
    """Count the objects among labels (N, R): the mean over processes, of at least one in all.

    Without gradients, as in a validation, of this process: others may have no image left.
    """
    num_processes = comm.get_world_size() if torch.is_grad_enabled() else 1
    count = (labels == 1).sum()
    if num_processes > 1:
        torch.distributed.all_reduce(count)
    return count.clamp(min=1) / num_processes


@torch.no_grad()
def withhold_ignored(
    proposals: list[Instances],
    gt_instances: list[Instances],
    background_iou: float,
    ignore_ioa: float,
) -> list[Instances]:
    """Drop proposals on a box to ignore and on no object, which ROI heads would call background.

    Args:
        proposals: N ``Instances`` with ``proposal_boxes``; their order stays.
        gt_instances, ignore_ioa: as for :func:`label_anchors`; "on" means the same.
        background_iou: below which the RPN's matcher calls an anchor background.
    """
    kept = []
    for of_image, gt in zip(proposals, gt_instances):
        ignored = ignored_boxes(gt)
        if len(ignored) > 0:
            boxes = of_image.proposal_boxes
            on_ignored = _lie_on(ignored, boxes, background_iou, ignore_ioa)
            on_object = (iou_matrix(gt.gt_boxes, boxes) >= background_iou).any(dim=0)
            of_image = of_image[torch.nonzero(on_object | ~on_ignored)[:, 0]]
        kept.append(of_image)
    return kept


def iou_matrix(objects: Boxes, anchors: Boxes) -> Tensor:
    """Return the (objects, R) IoUs of Detectron2's ``pairwise_iou``, to the bit, but faster.

    Each coordinate is contiguous, and results take the place of what is no longer needed.
    """
    a, b = objects.tensor.T[:, :, None], anchors.tensor.T.contiguous()
    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0])).clamp_(min=0)
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1])).clamp_(min=0)
    intersection = width.mul_(height)
    union = (objects.area()[:, None] + anchors.area()).sub_(intersection)
    return intersection.div_(union).nan_to_num_(nan=0)  # two boxes without area


def _lie_on(ignored: Boxes, boxes: Boxes, background_iou: float, ignore_ioa: float) -> Tensor:
    """Return (R,) bool: which of R boxes lie on any of those to ignore."""
    near = iou_matrix(ignored, boxes) >= background_iou
    inside = pairwise_ioa(ignored, boxes) >= ignore_ioa
    return (near | inside).any(dim=0)
