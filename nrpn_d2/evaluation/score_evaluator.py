"""What the scores of proposals mean, and what recall costs in background."""

from typing import Any

import numpy as np

from .evaluator import PerImageEvaluator, read_scores
from .proposal_errors import KINDS, match_proposals

NUM_BINS = 10
# Percent of the objects that are hit
RECALL_LEVELS = (50, 60, 70, 80, 90)


class ScoreEvaluator(PerImageEvaluator):
    """Calibration of the scores, and background at equal recall.

    ``evaluate`` returns the task "scores". The score is the sigmoid of the objectness logit, the
    IoU that of a proposal with the object it overlaps most; proposals on difficult objects are left
    out. Of the K best proposals of each image:

    - "ECE@K": expected calibration error, the mean of |mean score - mean IoU| over ten equally wide
      bins of the score, weighted by their proposals;
    - "score:b@K", "IoU:b@K", "share:b@K": mean score, mean IoU (nan in an empty bin) and percent of
      the proposals in bin b = 0, ..., 9.

    "background:r": background proposals per image with at least the score at which r percent of
    the objects are hit (IoU of at least 0.5), r = 50, ..., 90; nan if the largest budget does not
    hit as many.
    """

    def _read(
        self, output: dict[str, Any], n: int, origin: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the (K,) kinds, scores and IoUs."""
        boxes, scores, _ = read_scores(output, origin)
        kinds, ious = match_proposals(boxes[: self._budgets[-1]], self.ground_truth, n)
        return kinds, scores[: self._budgets[-1]], ious

    def _compute(self, records: dict[int, tuple]) -> dict[str, dict[str, float]]:
        results: dict[str, float] = {}
        for budget in self._budgets:
            kinds, scores, ious = _concatenate(records, budget)
            counted = kinds != KINDS.index("ignored")
            for name, value in calibration(scores[counted], ious[counted]).items():
                results[f"{name}@{budget}"] = value
        kinds, scores, _ = _concatenate(records, self._budgets[-1])
        num_objects = int((~self.ground_truth.ignored).sum())
        hits = scores[kinds == KINDS.index("hit")]
        background = scores[kinds == KINDS.index("background")]
        for level in RECALL_LEVELS:
            found = background_at_recall(hits, background, num_objects, level / 100)
            results[f"background:{level}"] = found / max(len(records), 1)
        return {"scores": results}


def _concatenate(records: dict[int, tuple], budget: int) -> tuple[np.ndarray, ...]:
    parts = [[array[:budget] for array in record] for record in records.values()]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts)) or (np.empty(0),) * 3


def calibration(scores: np.ndarray, ious: np.ndarray) -> dict[str, float]:
    """Compare scores with the IoUs that they are to mean.

    Args:
        scores, ious: (M,), in [0, 1].

    Returns:
        "ECE", and "score:b", "IoU:b", "share:b" of each bin b, see :class:`ScoreEvaluator`.
    """
    bins = np.minimum((scores * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    with np.errstate(invalid="ignore"):  # empty bins
        mean_scores = np.bincount(bins, scores, NUM_BINS) / counts
        mean_ious = np.bincount(bins, ious, NUM_BINS) / counts
        shares = counts / counts.sum()
    gaps = np.abs(mean_scores - mean_ious)
    results = {"ECE": float(np.nansum(shares * gaps)) if len(scores) else float("nan")}
    for b in range(NUM_BINS):
        results[f"score:{b}"] = float(mean_scores[b])
        results[f"IoU:{b}"] = float(mean_ious[b])
        results[f"share:{b}"] = float(100 * shares[b])
    return results


def is_bin(metric: str) -> bool:
    """Whether a metric of :class:`ScoreEvaluator` is one of a bin of the calibration."""
    return metric.startswith(("score:", "IoU:", "share:"))


def background_at_recall(
    hits: np.ndarray, background: np.ndarray, num_objects: int, recall: float
) -> float:
    """Count the background proposals that score as high as recall needs.

    Args:
        hits: scores of the proposals that hit an object, one for each object that is hit.
        background: scores of the background proposals.
        num_objects: hit or not.
        recall: share of the objects to hit.

    Returns:
        The count; nan if fewer objects are hit.
    """
    needed = int(np.ceil(recall * num_objects - 1e-9))
    if needed < 1 or len(hits) < needed:
        return float("nan")
    lowest = np.sort(hits)[::-1][needed - 1]
    return float((background >= lowest).sum())
