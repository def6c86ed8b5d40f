"""The exchange between the two networks: false positives one way, hard negatives the other.

Pure functions on (N, R) tensors: N images, R anchors per image. Labels are the matcher's:
1 (object), 0 (background), -1 (ignored). IoUs are those of an anchor, or of the proposal that is
regressed from it, with the ground-truth box that it overlaps most, 0 in an image without objects.
"""

import torch
from torchvision.ops import nms


def false_positives(
    logits: torch.Tensor,
    labels: torch.Tensor,
    ious: torch.Tensor,
    *,
    select: str = "threshold",
    score: float = 0.7,
    iou: float = 0.3,
    topk: int = 16,
) -> torch.Tensor:
    """Find the background anchors that the RPN mistakes for objects (paper, Sec. 2.2).

    Only background anchors count. An anchor with a low IoU may be the best one of an object, and
    then it is labelled 1: an object, never a false positive.

    Args:
        logits, labels, ious: (N, R), logits of the RPN.
        select: "threshold" for the paper's definition, objectness probability over ``score``;
            "topk" for the ``topk`` best-scored of each image, which finds some even where the RPN
            is never that sure. "overestimate" and "overestimate_topk" are the same with the
            objectness probability minus the IoU, for an RPN whose scores mean the IoU.
        score, iou, topk: see ``select``; a false positive has an IoU below ``iou``.

    Returns:
        (N, R) bool.
    """
    background = (labels == 0) & (ious < iou)
    if select == "threshold":
        return background & (logits.float().sigmoid() > score)
    if select == "topk":
        return _best(logits, background, topk)
    overestimate = logits.float().sigmoid() - ious
    if select == "overestimate":
        return background & (overestimate > score)
    if select == "overestimate_topk":
        return _best(overestimate, background, topk)
    choices = "'threshold', 'topk', 'overestimate', 'overestimate_topk'"
    raise ValueError(f"MODEL.NRPN.FP_SELECT {select!r} is none of {choices}")


def _best(values: torch.Tensor, eligible: torch.Tensor, topk: int) -> torch.Tensor:
    """(N, R) bool: the ``topk`` eligible anchors of largest value in each image, or all of them."""
    ranked = values.float().masked_fill(~eligible, -float("inf"))
    best = ranked.topk(min(topk, ranked.shape[1]), dim=1).indices
    return torch.zeros_like(eligible).scatter(1, best, True) & eligible


def nrpn_labels(labels: torch.Tensor, is_fp: torch.Tensor) -> torch.Tensor:
    """Turn the RPN's labels into the nRPN's: its objects are the RPN's false positives.

    Args:
        labels: (N, R), the matcher's.
        is_fp: (N, R) bool, from :func:`false_positives`.

    Returns:
        (N, R): 1 for false positives, 0 for objects and the rest of the background, -1 where the
        RPN's label is -1.
    """
    return labels.clamp(max=0).masked_fill(is_fp, 1)


def false_alarms(
    nrpn_logits: torch.Tensor, labels_of_nrpn: torch.Tensor, topk: int
) -> torch.Tensor:
    """Find what the nRPN takes for false positives of the RPN and is none: its own mistakes.

    Without them the nRPN goes on proposing what the RPN has long learned, since that looks as it
    did when it was a false positive and hardly ever is among the random negatives.

    Args:
        nrpn_logits: (N, R).
        labels_of_nrpn: (N, R), of :func:`nrpn_labels`.
        topk: number of anchors per image, the best-scored.

    Returns:
        (N, R) bool.
    """
    return _best(nrpn_logits, labels_of_nrpn == 0, topk)


@torch.no_grad()
def hard_negatives(
    nrpn_logits: torch.Tensor,
    labels: torch.Tensor,
    anchors: torch.Tensor,
    *,
    pre_nms_topk: int = 1000,
    nms_thresh: float = 0.7,
) -> torch.Tensor:
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
