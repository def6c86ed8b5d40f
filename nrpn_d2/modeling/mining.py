"""The exchange between the two networks: false positives one way, hard negatives the other.

Pure functions on (N, R) tensors; shapes and labels are those of hard_negative_rpn. IoUs are those
of an anchor, too, or of the proposal that is regressed from it.
"""

from collections.abc import Callable

import torch
from detectron2.utils.registry import Registry
from torch import Tensor
from torchvision.ops import nms

from .samplers import pick

MINER_REGISTRY = Registry("MINER")
MINER_REGISTRY.__doc__ = """
Registry of what counts as a false positive of the RPN, chosen by ``MODEL.NRPN.FP_SELECT``.

A registered function is called with ``(logits, ious, background, *, score, topk)``: (N, R) tensors,
the last one bool, with the anchors to choose from; and ``MODEL.NRPN.FP_SCORE`` and ``FP_TOPK``. It
returns (N, R) bool; what it chooses off the background does not count.
"""


@MINER_REGISTRY.register()
def threshold(
    logits: Tensor, ious: Tensor, background: Tensor, *, score: float, topk: int
) -> Tensor:
    """Objectness probability over ``score``: the paper's definition."""
    return logits.float().sigmoid() > score


@MINER_REGISTRY.register()
def topk(logits: Tensor, ious: Tensor, background: Tensor, *, score: float, topk: int) -> Tensor:
    """The ``topk`` best-scored of each image: some even where the RPN is never that sure."""
    return pick(logits.float(), background, None, topk)


@MINER_REGISTRY.register()
def overestimate(
    logits: Tensor, ious: Tensor, background: Tensor, *, score: float, topk: int
) -> Tensor:
    """Objectness probability minus IoU over ``score``, for an RPN whose scores mean the IoU."""
    return logits.float().sigmoid() - ious > score


@MINER_REGISTRY.register()
def overestimate_topk(
    logits: Tensor, ious: Tensor, background: Tensor, *, score: float, topk: int
) -> Tensor:
    """The ``topk`` of each image with the largest objectness probability minus IoU."""
    return pick(logits.float().sigmoid() - ious, background, None, topk)


def false_positives(
    logits: Tensor,
    labels: Tensor,
    ious: Tensor,
    *,
    select: Callable[..., Tensor] = threshold,
    score: float = 0.7,
    iou: float = 0.3,
    topk: int = 16,
) -> Tensor:
    """Find the background anchors that the RPN mistakes for objects (paper, Sec. 2.2).

    Only background anchors count. An anchor with a low IoU may be the best one of an object, and
    then it is labelled 1: an object, never a false positive.

    Args:
        logits, labels, ious: (N, R), logits of the RPN.
        select: see ``MINER_REGISTRY``.
        score, topk: for ``select``.
        iou: a false positive has an IoU below it.

    Returns:
        (N, R) bool.
    """
    background = (labels == 0) & (ious < iou)
    return background & select(logits, ious, background, score=score, topk=topk)


@torch.no_grad()
def hard_negatives(
    nrpn_logits: Tensor,
    labels: Tensor,
    anchors: Tensor,
    *,
    pre_nms_topk: int = 1000,
    nms_thresh: float = 0.7,
) -> Tensor:
    """Propose what the RPN should learn to reject, "excluding GT" (paper, Sec. 2.2).

    The nRPN regresses no boxes, so its proposals are anchors: background ones, ranked by its score
    and de-duplicated by non-maximum suppression.

    Args:
        nrpn_logits: (N, R).
        labels: (N, R), the matcher's; only anchors labelled 0 are proposed.
        anchors: (R, 4), XYXY.
        pre_nms_topk: number of anchors of an image, best first, that enter the suppression.
        nms_thresh: IoU over which the worse of two is suppressed.

    Returns:
        (N, R) float32: the nRPN's logit where it proposes an anchor, -inf elsewhere.
    """
    hidden = -float("inf")
    ranked = nrpn_logits.float().masked_fill(labels != 0, hidden)
    values, indices = ranked.topk(min(pre_nms_topk, ranked.shape[1]), dim=1)  # (N, K)
    # Images side by side, so that one suppression, and one wait for a GPU, serves all of them
    boxes = (anchors - anchors.min())[indices]
    width = boxes.max() + 1
    boxes = boxes + width * torch.arange(len(values), device=values.device)[:, None, None]
    keep = nms(boxes.flatten(0, 1), values.flatten(), nms_thresh)
    kept = torch.full_like(values, hidden).flatten()
    kept[keep] = values.flatten()[keep]
    return torch.full_like(ranked, hidden).scatter(1, indices, kept.view_as(values))
