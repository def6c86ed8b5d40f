"""What the proposals that find nothing are: the quantity that the nRPN is to reduce.

Shape shorthand as in ``recall.py``: K proposals of one image, best score first; G objects.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..utils.boxes import box_iou, covered_fraction
from .evaluator import PerImageEvaluator, format_table, read_scores
from .figures import error_figure, false_positive_figure
from .ground_truth import GroundTruth

logger = logging.getLogger(__name__)

# Of an object, the best-scored proposal with IoU >= 0.5 is a hit and the others are duplicates;
# 0.3 <= IoU < 0.5 is a bad localisation, IoU < 0.3 background: the bound below which the RPN takes
# an anchor as negative. Proposals on ignored (difficult) objects are no error, nor those of which
# half lies on a crowd
KINDS = ("hit", "duplicate", "localisation", "background", "ignored")
HIT_IOU, BACKGROUND_IOU, CROWD_FRACTION = 0.5, 0.3, 0.5

# Where confident begins: 0.7 is the threshold of the false-positive miner
SCORES = (0.5, 0.7, 0.9)

# Where the curve of recall is sampled: background proposals per image, from one in 100 images on
FALSE_POSITIVES = np.logspace(-2, 3, 101)


def classify_proposals(iou: np.ndarray, ignored: np.ndarray, on_crowd: np.ndarray) -> np.ndarray:
    """Find the kind of each proposal. It belongs to the object that it overlaps most.

    Args:
        iou: (G, K) with all objects of one image but its crowds.
        ignored: (G,) bool, difficult.
        on_crowd: (K,) bool, at least half of the proposal lies on a crowd.

    Returns:
        (K,) index in KINDS.
    """
    kinds = np.full(iou.shape[1], KINDS.index("background"))
    kinds[on_crowd] = KINDS.index("ignored")
    if iou.size == 0:
        return kinds
    best, best_iou = iou.argmax(axis=0), iou.max(axis=0)
    kinds[(best_iou >= BACKGROUND_IOU) & ~on_crowd] = KINDS.index("localisation")
    covering = np.flatnonzero(best_iou >= HIT_IOU)
    kinds[covering] = KINDS.index("duplicate")
    kinds[covering[np.unique(best[covering], return_index=True)[1]]] = KINDS.index("hit")
    kinds[ignored[best] & (best_iou >= BACKGROUND_IOU)] = KINDS.index("ignored")
    return kinds


def match_proposals(boxes: np.ndarray, truth: GroundTruth, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return kinds (K,) of image n's boxes (K, 4), best first, and best IoUs (K,) with objects."""
    of_image = truth.of_image(n)
    objects, crowd = truth.boxes[of_image, None], truth.crowd[of_image]
    on_crowd = (covered_fraction(boxes, objects[crowd]) >= CROWD_FRACTION).any(axis=0)
    ignored, iou = truth.ignored[of_image][~crowd], box_iou(objects[~crowd], boxes)
    return classify_proposals(iou, ignored, on_crowd), iou[~ignored].max(axis=0, initial=0)


class ProposalErrorEvaluator(PerImageEvaluator):
    """What the best proposals of each image are, class-agnostic.

    ``evaluate`` returns the task "proposal_errors". Of the proposals of the model as it is
    configured: "hit", "duplicate", "localisation", "background" and "ignored" in percent; and the
    mean number per image with a score above s = 0.5, 0.7, 0.9: "hit>s", ..., and "on_empty>s" per
    image without objects. Of the K best for each budget K: "hit@K", ... in percent. The score is
    the sigmoid of the objectness logit; nan for proposals without logits.

    ``curves["errors"]`` is {K: {kind: percent}}. ``curves["false_positives"]`` is what a score
    threshold trades: "per_image" background proposals and the "recall" of the hits among as many,
    all images and scores in common; not there for proposals without logits.
    """

    figures = {"errors": error_figure, "false_positives": false_positive_figure}

    @staticmethod
    def compare(results: dict[str, dict[str, float]]) -> Iterator[tuple[str, str, float]]:
        errors = results.get("proposal_errors", {})
        if "background>0.7" in errors:
            words = "background, score > 0.7, per image"
            yield words, "as configured", errors["background>0.7"]

    def _read(self, output: dict[str, Any], n: int, origin: str) -> tuple[Any, ...]:
        """Return the kind (K,) and score (K,) of each proposal, and how many are configured."""
        boxes, scores, configured = read_scores(output, origin)
        kinds, _ = match_proposals(boxes, self.ground_truth, n)
        return kinds.astype(np.int8), scores, configured

    def _compute(self, records: dict[int, Any]) -> dict[str, dict[str, float]]:
        own = {n: (kinds[:k], scores[:k]) for n, (kinds, scores, k) in records.items()}
        shares = {"": _shares(kinds for kinds, _ in own.values())}
        for k in self._budgets:
            shares[f"@{k}"] = _shares(kinds[:k] for kinds, _, _ in records.values())
        results = {}
        for budget, of_kinds in shares.items():
            results.update({f"{kind}{budget}": share for kind, share in of_kinds.items()})
        self.curves = {"errors": {str(k): shares[f"@{k}"] for k in self._budgets}}
        scored = not any(np.isnan(scores).any() for _, scores in own.values())
        results.update(self._confident(own, scored))
        if scored:
            self.curves["false_positives"] = self._trade_off(own)
        logger.info(
            "Proposals on %s by kind: percent of the best #proposals, and number per image with a "
            "score above that\n%s",
            *(self.ground_truth.dataset_name, self._table(results)),
        )
        return {"proposal_errors": results}

    def _confident(self, own: dict[int, Any], scored: bool) -> dict[str, float]:
        """Count the proposals above each of SCORES, per image."""
        empty = set(self.ground_truth.image_index.values()) - set(self.ground_truth.images.tolist())
        results = {}
        for s in SCORES:
            confident = {n: kinds[scores > s] for n, (kinds, scores) in own.items()}
            means = _count(confident.values()) / max(len(own), 1)
            results.update({f"{kind}>{s}": float(mean) for kind, mean in zip(KINDS, means)})
            on_empty = [len(confident[n]) for n in empty if n in confident]
            results[f"on_empty>{s}"] = float(np.mean(on_empty)) if on_empty else np.nan
        return results if scored else dict.fromkeys(results, np.nan)

    def _trade_off(self, own: dict[int, Any]) -> dict[str, Any]:
        """Sample recall at each number of FALSE_POSITIVES per image that the proposals reach."""
        kinds = np.concatenate([np.empty(0, np.int8), *(kinds for kinds, _ in own.values())])
        scores = np.concatenate([np.empty(0), *(scores for _, scores in own.values())])
        kinds = kinds[np.argsort(-scores, kind="stable")]
        wrong = np.cumsum(kinds == KINDS.index("background")) / max(len(own), 1)
        hits = np.append(0, np.cumsum(kinds == KINDS.index("hit")))
        # At least one point, also of proposals that are never wrong
        last = np.searchsorted(FALSE_POSITIVES, wrong.max(initial=0), side="right")
        reached = FALSE_POSITIVES[: max(last, 1)]
        at = np.searchsorted(wrong, reached, side="right")
        objects = np.sum(~self.ground_truth.ignored)
        return {"per_image": reached, "recall": hits[at] / (objects or np.nan)}

    def _table(self, results: dict[str, float]) -> str:
        rows = [
            [budget or "as configured", "%", *(results[kind + at + budget] for kind in KINDS)]
            for at, budget in [("", ""), *(("@", str(k)) for k in self._budgets)]
        ]
        for s in SCORES:
            keys = [*(f"{kind}>{s}" for kind in KINDS), f"on_empty>{s}"]
            rows.append([f"score > {s}", "per image", *(results[key] for key in keys)])
        return format_table(["#proposals", "", *KINDS, "on images without objects"], rows)


def _shares(kinds: Iterable[np.ndarray]) -> dict[str, float]:
    """Return the percentage of each kind; nan without proposals."""
    counts = _count(kinds)
    return dict(zip(KINDS, (100 * counts / (counts.sum() or np.nan)).tolist()))


def _count(kinds: Iterable[np.ndarray]) -> np.ndarray:
    """Return the number of proposals of each kind, (len(KINDS),), in several arrays of kinds."""
    return np.bincount(np.concatenate([np.empty(0, int), *kinds]), minlength=len(KINDS))
