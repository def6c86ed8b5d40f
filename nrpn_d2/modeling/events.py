"""What the two networks give each other, as scalars and in the log."""

import logging

import torch
from detectron2.utils.events import EventWriter, get_event_storage
from torch import Tensor

_DEPTH = 1000  # anchors of an image, the best-scored, that its average precision is taken of


@torch.no_grad()
def log_exchange(
    logits: Tensor, nrpn_logits: Tensor | None, labels: Tensor, is_fp: Tensor, hard: Tensor
) -> None:
    """Put what the networks give each other in this iteration into the event storage.

    nrpn/joint is 0 in the warm-up and 1 after it. nrpn/false_positives and nrpn/hard_negatives are
    counts per image. Mean scores on these anchors are nrpn/rpn_score_on_fp and
    nrpn/rpn_score_on_hard, of the RPN, and nrpn/score_on_fp and nrpn/score_on_hard, of the nRPN.

    How well the nRPN keeps up with the RPN: nrpn/believed is the fraction of the hard negatives
    that are false positives of the RPN at that moment, the others it has learned already or never
    took for objects; nrpn/ap is the average precision of the nRPN's ranking of the background for
    the false positives, the mean over images. A mean over nothing is left out.

    Args:
        logits, nrpn_logits: (N, R), of the RPN and of the nRPN; the latter is None in the warm-up.
        labels: (N, R), the matcher's.
        is_fp, hard: (N, R) bool, the RPN's false positives; the hard negatives it learns from.
    """
    num_images = len(is_fp)
    stats = {
        "nrpn/false_positives": is_fp.sum() / num_images,
        "nrpn/hard_negatives": hard.sum() / num_images,
        "nrpn/rpn_score_on_fp": _mean_score(logits, is_fp),
    }
    if nrpn_logits is not None:
        stats["nrpn/score_on_fp"] = _mean_score(nrpn_logits, is_fp)
        stats["nrpn/rpn_score_on_hard"] = _mean_score(logits, hard)
        stats["nrpn/score_on_hard"] = _mean_score(nrpn_logits, hard)
        stats["nrpn/believed"] = (hard & is_fp).sum() / hard.sum()
        stats["nrpn/ap"] = _average_precision(nrpn_logits, labels == 0, is_fp)
    storage = get_event_storage()
    storage.put_scalar("nrpn/joint", float(nrpn_logits is not None), smoothing_hint=False)
    values = torch.stack(list(stats.values())).tolist()  # one transfer from the GPU
    for name, value in zip(stats, values):
        if value == value:  # not NaN
            storage.put_scalar(name, value)


def _mean_score(logits: Tensor, mask: Tensor) -> Tensor:
    return (logits.float().sigmoid() * mask).sum() / mask.sum()


def _average_precision(logits: Tensor, ranked: Tensor, relevant: Tensor) -> Tensor:
    """Return the average precision (), the mean over images that have relevant anchors, or nan.

    Args:
        logits: (N, R), which rank the anchors of each image.
        ranked: (N, R) bool, those that take part.
        relevant: (N, R) bool, some of them; not found if they rank below ``_DEPTH``.
    """
    order = logits.float().masked_fill(~ranked, -float("inf"))
    order = order.topk(min(_DEPTH, order.shape[1]), dim=1).indices
    hit = relevant.gather(1, order)
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    precision = hit.cumsum(1) / rank
    counts = relevant.sum(1)
    return ((precision * hit).sum(1) / counts.clamp(min=1)).sum() / (counts > 0).sum()


class ExchangePrinter(EventWriter):
    """Log the ``nrpn/*`` scalars, averaged over the last 20 iterations, as Detectron2 does."""

    def write(self):
        storage = get_event_storage()
        names = sorted(name for name in storage.histories() if name.startswith("nrpn/"))
        if "nrpn/joint" not in names:
            return
        phase = "joint" if storage.history("nrpn/joint").latest() else "warm-up"
        means = {name.removeprefix("nrpn/"): storage.history(name).avg(20) for name in names}
        del means["joint"]
        sentence = f"{means.pop('false_positives'):.3g} false positives per image"
        if "believed" in means:
            share = 100 * means.pop("believed")
            sentence += f"; of the nRPN's proposals, the RPN still believes {share:.0f} %"
        values = "  ".join(f"{name}: {value:.3g}" for name, value in means.items())
        logging.getLogger(__name__).info("nRPN %s: %s  %s", phase, sentence, values)
