"""How good the proposals are that the RPN regresses from its anchors.

Shapes: N images, R anchors per image (of all levels), G objects in the fullest image.
"""

from functools import cached_property

import torch
from detectron2.layers import cat
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class ProposalIoUs:
    """The IoU of a proposal with the object of its image that it overlaps most.

    Proposals are what the RPN proposes: regressed from the anchors and clipped to the image. Only
    those that are asked for are computed; all R of them would cost more than a training step's
    labelling. No gradient flows. Boxes to ignore (see ignored.py) are no objects.
    """

    def __init__(
        self,
        anchors: list[Boxes],
        deltas: list[Tensor],
        box2box_transform: Box2BoxTransform,
        gt_instances: list[Instances],
    ):
        """Take anchors and deltas (N, Hi*Wi*A, 4) of each level, and N ``Instances``."""
        self._anchors = anchors
        self._deltas = deltas
        self._transform = box2box_transform
        self._gt_instances = gt_instances

    @cached_property  # at the first question: most losses and miners ask none
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Anchors (R, 4), deltas (N, R, 4), sizes of images (N, 4), objects (N, G, 4)."""
        anchors = Boxes.cat(self._anchors).tensor
        deltas = cat([x.detach() for x in self._deltas], dim=1)
        sizes = [(w, h, w, h) for h, w in (gt.image_size for gt in self._gt_instances)]
        objects = [gt.gt_boxes.tensor for gt in self._gt_instances]
        # Boxes of zeros fill up, which overlap nothing
        return anchors, deltas, anchors.new_tensor(sizes), pad_sequence(objects, batch_first=True)

    @torch.no_grad()
    def of(self, images: Tensor, anchors: Tensor) -> Tensor:
        """Compute the IoUs of some proposals.

        Args:
            images, anchors: indices in [0, N) and [0, R), of any shape (...).

        Returns:
            (...) float32, 0 in an image without objects.
        """
        all_anchors, all_deltas, sizes, objects = self._tensors
        if objects.shape[1] == 0:
            return torch.zeros(images.shape, device=images.device)
        deltas, boxes = all_deltas[images, anchors], all_anchors[anchors]
        shape = boxes.shape  # (..., 4)
        boxes = self._transform.apply_deltas(deltas.reshape(-1, 4).float(), boxes.reshape(-1, 4))
        boxes = torch.minimum(boxes.view(shape).clamp(min=0), sizes[images])
        return _iou(boxes[..., None, :], objects[images]).amax(dim=-1)  # of (..., G)

    def at(self, indices: Tensor) -> Tensor:
        """Compute the IoUs at indices (M,) into flattened (N, R) tensors."""
        num_anchors = sum(map(len, self._anchors))
        images = torch.div(indices, num_anchors, rounding_mode="floor")
        return self.of(images, indices % num_anchors)

    @torch.no_grad()
    def of_best(self, scores: Tensor, topk: int) -> Tensor:
        """Compute the IoUs of the best-scored anchors of each image.

        Args:
            scores: (N, R).
            topk: number of anchors per image.

        Returns:
            (N, R) float32, 1 for the others: so they never pass for a mistake.
        """
        best = scores.topk(min(topk, scores.shape[1]), dim=1).indices  # (N, K)
        images = torch.arange(len(best), device=best.device)[:, None].expand_as(best)
        ones = torch.ones(scores.shape, device=scores.device)
        return ones.scatter(1, best, self.of(images, best))


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Return IoUs (...) of boxes (..., 4) that broadcast; 0 for two boxes without area."""
    width_height = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = width_height.clamp(min=0).prod(dim=-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(dim=-1) for x in (a, b)]
    return (intersection / (areas[0] + areas[1] - intersection)).nan_to_num(nan=0)
