"""Objectness losses: what an anchor costs, given its logit, its label and its IoU.

All take logits, labels in {0, 1} and IoUs of shape (M,) and give (M,) losses in float32, so that
they are the same under mixed precision. p is sigmoid(logit), IoU that of the anchor, or of the
proposal that is regressed from it, with the ground-truth box it overlaps most.
"""

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.utils.registry import Registry
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

OBJECTNESS_LOSS_REGISTRY = Registry("OBJECTNESS_LOSS")
OBJECTNESS_LOSS_REGISTRY.__doc__ = """
Registry of the RPN's objectness losses, chosen by ``MODEL.RPN.OBJECTNESS_LOSS.NAME``.

A registered object is called with ``obj(cfg)`` and returns a callable
``loss(logits, labels, ious) -> losses``; all are (M,) tensors. Its attribute
``needs_all_anchors`` says whether it is made for all anchors of an image, in place of a sampled
mini-batch; the sum is then divided by the number of positives instead of the mini-batch's size.
Its attribute ``iou_of`` (optional, "anchor") says whose IoUs it wants: the "anchor"'s, or those of
its "proposal", the box that the RPN regresses from it.
"""


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``-t log p - (1 - t) log(1 - p)`` in float32, finite for any logit."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")


@OBJECTNESS_LOSS_REGISTRY.register()
class BCE:
    """Binary cross-entropy, as in Faster R-CNN."""

    needs_all_anchors = False

    def __init__(self, cfg: CfgNode | None = None):
        pass

    def __call__(self, logits: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
        return bce(logits, labels)


@OBJECTNESS_LOSS_REGISTRY.register()
class Overlap:
    """Train each positive anchor towards its IoU instead of 1 (paper, Sec. 2.3 and Eq. 1).

    Eq. 1 divides p by IoU: ``-log(p / IoU) = -log p + log IoU`` for a positive. IoU does not depend
    on the weights, so this only shifts the loss: its gradient is that of cross-entropy. An example:
    with p = 0.9 and IoU = 0.6 the printed loss is log(0.6 / 0.9) < 0 and still pushes p towards 1.
    Hence three modes. Negatives have cross-entropy in each: Eq. 1 as printed would give them
    ``-log p``, a slip of sign for ``-log(1 - p)``.
    """

    needs_all_anchors = False

    @configurable
    def __init__(self, *, mode: str = "clamped", min_iou: float = 0.1):
        """
        Args:
            mode: what a positive costs.
                "literal": ``-log(p / IoU)``, as printed; same gradient as cross-entropy.
                "clamped": ``max(0, log(IoU / p))``; no gradient once p >= IoU.
                "soft": cross-entropy with the target IoU; its minimum is at p = IoU.
            min_iou: IoUs are clamped to [min_iou, 1], since a best anchor may overlap very little.
        """
        if mode not in ("literal", "clamped", "soft"):
            raise ValueError(f"overlap mode {mode!r} is none of 'literal', 'clamped', 'soft'")
        self.mode = mode
        self.min_iou = min_iou

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        loss = cfg.MODEL.RPN.OBJECTNESS_LOSS
        return {"mode": loss.OVERLAP_MODE, "min_iou": loss.MIN_IOU}

    def __call__(self, logits: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
        positive = labels == 1
        ious = ious.float().clamp(self.min_iou, 1.0)
        if self.mode == "soft":
            return bce(logits, ious * positive)
        loss = bce(logits, labels)
        shifted = loss + ious.log()
        return torch.where(positive, F.relu(shifted) if self.mode == "clamped" else shifted, loss)


@OBJECTNESS_LOSS_REGISTRY.register()
class IoUTarget:
    """Binary cross-entropy against the IoU: objectness that means how good a proposal is.

    The paper wants "the expected objectness score ... [to] be its IoU value rather than 1"
    (Sec. 2.3). Cross-entropy with the target IoU has its minimum at p = IoU. What is ranked and
    suppressed by the score is the proposal, hence the proposal's IoU, not the anchor's: an anchor
    with an IoU of 0.7 may be regressed to 0.9 or to 0.5.
    How quality focal loss, varifocal loss and OLN differ: docs/method.md.
    """

    needs_all_anchors = False
    background_iou = 0.3  # below it lies background, as for the matcher and in the evaluation

    @configurable
    def __init__(
        self, *, iou_of: str = "proposal", near_negatives: bool = False, stretch: bool = False
    ):
        """
        Args:
            iou_of: "proposal" or "anchor".
            near_negatives: negatives, too, have their IoU as target if that is at least
                ``background_iou``: anchors off an object whose proposal is on it. Other negatives
                have the target 0.
            stretch: the target is ``(IoU - background_iou) / (1 - background_iou)``, 0 below, so
                that it starts at 0 where background ends.
        """
        self.iou_of = iou_of
        self.near_negatives = near_negatives
        self.stretch = stretch

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        loss = cfg.MODEL.RPN.OBJECTNESS_LOSS
        return {
            "iou_of": loss.IOU_OF,
            "near_negatives": loss.NEAR_NEGATIVES,
            "stretch": loss.STRETCH,
        }

    def __call__(self, logits: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
        ious = ious.detach().float()
        learns_iou = labels == 1
        if self.near_negatives:
            learns_iou = learns_iou | (ious >= self.background_iou)
        if self.stretch:
            ious = ((ious - self.background_iou) / (1 - self.background_iou)).clamp(min=0)
        return bce(logits, ious * learns_iou)


@OBJECTNESS_LOSS_REGISTRY.register()
class Focal:
    """Focal loss (Lin et al., 2017), by fvcore."""

    needs_all_anchors = True

    @configurable
    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0):
        self.alpha = alpha
        self.gamma = gamma

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        loss = cfg.MODEL.RPN.OBJECTNESS_LOSS
        return {"alpha": loss.FOCAL_ALPHA, "gamma": loss.FOCAL_GAMMA}

    def __call__(self, logits: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
        return sigmoid_focal_loss(logits.float(), labels.float(), self.alpha, self.gamma)


@OBJECTNESS_LOSS_REGISTRY.register()
class QualityFocal:
    """Quality focal loss (Generalized Focal Loss, Eq. 6): ``|t - p|^gamma * BCE(p, t)``.

    The target t is the anchor's IoU for a positive and 0 for a negative.
    """

    needs_all_anchors = True

    @configurable
    def __init__(self, *, gamma: float = 2.0):
        self.gamma = gamma

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"gamma": cfg.MODEL.RPN.OBJECTNESS_LOSS.FOCAL_GAMMA}

    def __call__(self, logits: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
        targets = ious.float() * (labels == 1)
        return (targets - logits.float().sigmoid()).abs().pow(self.gamma) * bce(logits, targets)
