"""What the two networks give each other, as scalars and in the log."""

import logging

import torch
from detectron2.utils.events import EventWriter, get_event_storage


@torch.no_grad()
def log_exchange(
    logits: torch.Tensor,
    nrpn_logits: torch.Tensor | None,
    is_fp: torch.Tensor,
    hard: torch.Tensor,
) -> None:
    """Put what the networks give each other in this iteration into the event storage.

    nrpn/joint is 0 in the warm-up and 1 after it. nrpn/false_positives and nrpn/hard_negatives are
    counts per image. The others are mean scores on these anchors, of the RPN (nrpn/rpn_score_on_fp,
    nrpn/rpn_score_on_hard) and of the nRPN (nrpn/score_on_fp, nrpn/score_on_hard); a mean over no
    anchors is left out.

    Args:
        logits: (N, R), of the RPN.
        nrpn_logits: (N, R), or None in the warm-up.
        is_fp: (N, R) bool, the RPN's false positives.
        hard: (N, R) bool, the hard negatives that the RPN learns from.
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
    storage = get_event_storage()
    storage.put_scalar("nrpn/joint", float(nrpn_logits is not None), smoothing_hint=False)
    values = torch.stack(list(stats.values())).tolist()  # one transfer from the GPU
    for name, value in zip(stats, values):
        if value == value:  # not NaN
            storage.put_scalar(name, value)


def _mean_score(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (logits.float().sigmoid() * mask).sum() / mask.sum()


class ExchangePrinter(EventWriter):
    """Log the ``nrpn/*`` scalars, averaged over the last ``window_size`` iterations."""

    def __init__(self, window_size: int = 20):
        self.logger = logging.getLogger(__name__)
        self.window_size = window_size

    def write(self):
        storage = get_event_storage()
        names = sorted(name for name in storage.histories() if name.startswith("nrpn/"))
        if "nrpn/joint" not in names:
            return
        names.remove("nrpn/joint")
        phase = "joint" if storage.history("nrpn/joint").latest() else "warm-up"
        values = "  ".join(
            f"{name[len('nrpn/') :]}: {storage.history(name).avg(self.window_size):.3g}"
            for name in names
        )
        self.logger.info("nRPN %s  %s", phase, values)
