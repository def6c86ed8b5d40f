"""
What the proposals that find nothing are: the quantity that the nRPN is to reduce.

Shape shorthand as in ``recall.py``: K proposals of one image, best score first; G objects.
"""

import logging
from collections import OrderedDict

import numpy as np

from .boxes import box_iou, covered_fraction
from .evaluator import PerImageEvaluator, best_first, read_proposals
from .report import error_table

logger = logging.getLogger(__name__)

# Of an object, the best-scored proposal with IoU >= 0.5 is a hit and the others are duplicates;
# 0.3 <= IoU < 0.5 is a bad localisation, IoU < 0.3 background: the bound below which the RPN takes
# an anchor as negative. Proposals on ignored (difficult) objects are no error, nor those of which
# half lies on a crowd.
KINDS = ("hit", "duplicate", "localisation", "background", "ignored")
HIT_IOU, BACKGROUND_IOU, CROWD_FRACTION = 0.5, 0.3, 0.5

# Where confident begins: 0.7 is the threshold of the false-positive miner.
SCORES = (0.5, 0.7, 0.9)


def classify_proposals(iou, ignored, on_crowd=False):
    """
    Args:
        iou (ndarray): (G, K) with all objects of one image but its crowds.
        ignored (ndarray): (G,) bool, difficult.
        on_crowd (ndarray): (K,) bool, at least half of the proposal lies on a crowd.

    Returns:
        ndarray: (K,) index in KINDS. A proposal belongs to the object it overlaps most.
    """
    kinds = np.full(iou.shape[1], KINDS.index("background"))
    kinds[on_crowd] = KINDS.index("ignored")
    if iou.size == 0:
        return kinds
    best, best_iou = iou.argmax(axis=0), iou.max(axis=0)
    kinds[(best_iou >= BACKGROUND_IOU) & np.logical_not(on_crowd)] = KINDS.index("localisation")
    covering = np.flatnonzero(best_iou >= HIT_IOU)
    kinds[covering] = KINDS.index("duplicate")
    kinds[covering[np.unique(best[covering], return_index=True)[1]]] = KINDS.index("hit")
    kinds[ignored[best] & (best_iou >= BACKGROUND_IOU)] = KINDS.index("ignored")
    return kinds


class ProposalErrorEvaluator(PerImageEvaluator):
    """
    What the K best proposals of each image are, class-agnostic.

    ``evaluate`` returns the task "proposal_errors": "hit@K", "duplicate@K", "localisation@K",
    "background@K" and "ignored@K", in percent of the proposals; and, of the proposals in the
    largest budget with a score above s = 0.5, 0.7, 0.9, the mean number per image: "hit>s", ...,
    and "on_empty>s" per image without objects. The score is the sigmoid of the objectness logit.

    ``curves["errors"]`` is {K: {kind: percent}}.
    """

    def __init__(self, dataset_name, *, budgets=(50, 100, 300), scored=True, ground_truth=None):
        """
        Args:
            dataset_name (str): a name in DatasetCatalog.
            budgets (Sequence[int]): numbers of proposals.
            scored (bool): False if the logits only rank; what depends on a score is then nan.
            ground_truth (GroundTruth): of the dataset, if it is already loaded.
        """
        super().__init__(dataset_name, ground_truth=ground_truth)
        self._budgets = sorted(budgets)
        self._scored = scored

    def _read(self, output, n, origin):
        boxes, logits = best_first(*read_proposals(output, origin), origin)
        boxes, logits = boxes[: self._budgets[-1]], logits[: self._budgets[-1]]
        of_image = self.ground_truth.of_image(n)
        objects, crowd = self.ground_truth.boxes[of_image, None], self.ground_truth.crowd[of_image]
        on_crowd = (covered_fraction(boxes, objects[crowd]) >= CROWD_FRACTION).any(axis=0)
        ignored = self.ground_truth.ignored[of_image][~crowd]
        kinds = classify_proposals(box_iou(objects[~crowd], boxes), ignored, on_crowd)
        return kinds, np.exp(-np.logaddexp(0, -logits.astype(np.float64)))  # the sigmoid

    def _compute(self, records):
        results, self.curves = OrderedDict(), {"errors": {}}
        for budget in self._budgets:
            counts = _count(kinds[:budget] for kinds, _ in records.values())
            shares = 100 * counts / counts.sum() if counts.sum() else np.full(len(KINDS), np.nan)
            self.curves["errors"][budget] = dict(zip(KINDS, shares.tolist()))
            results.update({f"{kind}@{budget}": share for kind, share in zip(KINDS, shares)})
        empty = set(self.ground_truth.image_index.values()) - set(self.ground_truth.images.tolist())
        for s in SCORES:
            confident = {n: kinds[score > s] for n, (kinds, score) in records.items()}
            means = _count(confident.values()) / max(len(records), 1)
            results.update({f"{kind}>{s}": mean for kind, mean in zip(KINDS, means)})
            on_empty = [len(confident[n]) for n in empty if n in confident]
            results[f"on_empty>{s}"] = np.mean(on_empty) if on_empty else np.nan
        if not self._scored:
            results.update({key: np.nan for key in results if ">" in key})
        results = OrderedDict((key, float(value)) for key, value in results.items())
        logger.info(
            f"Proposals on {self.ground_truth.dataset_name} by kind: percent of the best "
            f"#proposals, and number per image with a score above that\n"
            + error_table(results, self._budgets, SCORES, KINDS)
        )
        return OrderedDict(proposal_errors=results)


def _count(kinds):
    """Number of proposals of each kind, (len(KINDS),), in several arrays of kinds."""
    return np.bincount(np.concatenate([np.empty(0, int), *kinds]), minlength=len(KINDS))
