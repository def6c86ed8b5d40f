"""Proposal recall as a DatasetEvaluator of Detectron2."""

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from ..data.checks import left_out_classes
from ..utils.boxes import box_area, box_iou
from .evaluator import PerImageEvaluator, format_table, read_proposals
from .figures import recall_figure
from .ground_truth import GroundTruth
from .recall import (
    SIZE_RANGES,
    Pairs,
    average_recall,
    close_pairs,
    covered_overlaps,
    in_size_ranges,
    recall,
)

logger = logging.getLogger(__name__)

# Where the curves over the number of proposals are sampled: evenly on a logarithmic scale
CURVE_BUDGETS = tuple(np.unique(np.logspace(0, 4, 33).astype(int)).tolist())
CURVE_THRESHOLDS = np.round(np.arange(0.5, 1.0, 0.01), 2)

# What the metrics of objects of a size are called, behind AR or R50
_SUFFIXES = {size: "" if size == "all" else size.lower() for size in SIZE_RANGES}

# Images that are matched at once: few calls of numpy, and arrays that stay in the cache
BLOCK = 64


class ProposalRecallEvaluator(PerImageEvaluator):
    """Recall of the best proposals of each image, class-agnostic, for ``proposals`` with
    ``proposal_boxes`` and ``objectness_logits`` (ProposalNetwork, :class:`BudgetedModel`).

    ``evaluate`` returns the task "box_proposals", in percent: "AR" (mean over IoU 0.5:0.05:0.95)
    and "R50" (recall at IoU 0.5; one for each threshold) of the model as it is configured, and
    "AR@K", "R50@K" of its K best proposals, for each budget K. The same for small, medium and large
    objects ("ARs", "R50m@K", ...), and "AR-name", "R50@K-name" for the objects of a class; matching
    is class-agnostic for these, too. nan where there is no object. With classes that were left out
    of the training, "AR-seen", "R50@K-unseen" and so on are those of the other classes, and theirs.

    ``curves["recall"]`` holds arrays in [0, 1]: "iou" (50,) with "recall_vs_iou" {K: (50,)}, and
    "num_proposals" (P,) with "recall_vs_num" {IoU: (P,), "AR": (P,)}; the keys are text.
    """

    figures = {"recall": recall_figure}

    @classmethod
    def from_config(cls, cfg: CfgNode, truth: GroundTruth) -> "ProposalRecallEvaluator":
        thresholds, left_out = cfg.TEST.PROPOSALS.IOU_THRESHOLDS, cfg.DATASETS.LEFT_OUT
        return super().from_config(cfg, truth, iou_thresholds=thresholds, left_out=left_out)

    @staticmethod
    def compare(results: dict[str, dict[str, float]]) -> Iterator[tuple[str, str, float]]:
        for key, value in results.get("box_proposals", {}).items():
            metric, _, budget = key.partition("@")
            threshold = re.fullmatch(r"R([\d.]+)", metric)
            if "-" not in budget and (threshold or metric == "AR"):
                words = f"recall, IoU {float(threshold[1]) / 100:g}" if threshold else metric
                yield words, budget or "as configured", value

    def __init__(
        self,
        dataset_name: str,
        *,
        iou_thresholds: Sequence[float] = (0.5, 0.7, 0.9),
        left_out: Sequence[str] = (),  # names of classes
        **common: Any,  # of PerImageEvaluator
    ):
        super().__init__(dataset_name, **common)
        if not iou_thresholds or not all(0 < t <= 1 for t in iou_thresholds):
            raise ValueError(f"IoU thresholds must be in (0, 1], got {list(iou_thresholds)}")
        to_find = ~self.ground_truth.ignored
        self._objects = self.ground_truth.boxes[to_find]
        self._images = self.ground_truth.images[to_find]
        self._classes = self.ground_truth.classes[to_find]
        names = self.ground_truth.class_names
        unseen = np.isin(self._classes, left_out_classes(left_out, names, dataset_name))
        self._parts = {"seen": ~unseen, "unseen": unseen} if left_out else {}
        every_image = np.arange(len(self.ground_truth.image_index) + 1)
        self._first = np.searchsorted(self._images, every_image).tolist()
        self._thresholds = list(iou_thresholds)
        self._floor = min(0.5, *self._thresholds)

    def reset(self) -> None:
        super().reset()
        self._waiting: list[tuple] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        super().process(inputs, outputs)
        if len(self._waiting) >= BLOCK:
            self._complete()

    def _read(self, output: dict[str, Any], n: int, origin: str) -> None:
        boxes, _, configured = read_proposals(output, origin)
        self._waiting.append((n, boxes, configured))

    def _complete(self) -> None:
        """Reduce the proposals of the waiting images to their close pairs."""
        if not self._waiting:
            return
        images, boxes, configured = zip(*self._waiting)
        self._waiting = []
        objects = [self._objects[self._first[n] : self._first[n + 1]] for n in images]
        rows, g, k = close_pairs(objects, boxes, self._floor)
        g += np.array([self._first[n] for n in images], int)[rows]
        counts = np.array([len(of_image) for of_image in boxes])
        starts = np.cumsum(counts) - counts
        iou = box_iou(self._objects[g], np.concatenate(boxes)[starts[rows] + k])
        close = iou >= self._floor
        rows, *pairs = (array[close] for array in (rows, g, k, iou))
        bounds = np.searchsorted(rows, np.arange(len(images) + 1)).tolist()
        for i, n in enumerate(images):
            # Copies: a slice would keep the arrays of the whole block
            arrays = (array[bounds[i] : bounds[i + 1]].copy() for array in pairs)
            self._records[n] = len(boxes[i]), configured[i], *arrays

    def _compute(self, records: dict[int, Any]) -> dict[str, dict[str, float]]:
        empty = np.empty(0, int), np.empty(0, int), np.empty(0)
        pairs = Pairs(*map(np.concatenate, zip(empty, *(records[n][2:] for n in sorted(records)))))
        # An image with fewer proposals than the model may give has no others in reserve, so the
        # largest number in any image is as good as the configured one
        most, configured = np.max([[1, 1], *(record[:2] for record in records.values())], axis=0)
        budgets = {"": configured, **{f"@{k}": k for k in self._budgets}}
        in_range = in_size_ranges(box_area(self._objects))
        overlaps = covered_overlaps(pairs, self._images, [*budgets.values()], in_range)
        results = {}
        for budget, by_size in zip(budgets, overlaps):  # (Z, G)
            results.update(self._results(by_size, budget))
        every = in_range[[list(SIZE_RANGES).index("all")]]
        self.curves = {"recall": self._curves(pairs, every, most)}
        logger.info(
            "Recall (%%) of proposals on %s, %d objects in %d images:\n%s",
            *(self.ground_truth.dataset_name, len(self._objects), len(self._first) - 1),
            self._table(results, budgets),
        )
        return {"box_proposals": results}

    def _results(self, by_size: np.ndarray, budget: str) -> dict[str, float]:
        """Name the recalls of overlaps (Z, G); ``budget`` ("@50", or "") is part of the keys."""
        groups = {f"{suffix}{budget}": x for suffix, x in zip(_SUFFIXES.values(), by_size)}
        every = groups[budget]
        classes = {n: self._classes == c for c, n in enumerate(self.ground_truth.class_names)}
        for name, part in {**classes, **self._parts}.items():
            groups[f"{budget}-{name}"] = every[part]
        results = {}
        for suffix, overlaps in groups.items():
            results[f"AR{suffix}"] = 100 * float(average_recall(overlaps))
            for t, value in zip(self._thresholds, recall(overlaps, self._thresholds)):
                results[f"R{100 * t:g}{suffix}"] = 100 * float(value)
        return results

    def _table(self, results: dict[str, float], budgets: dict[str, int]) -> str:
        """Format as Table 2 of the paper: recall by number of proposals, object size and IoU."""
        metrics = [*(f"R{100 * t:g}" for t in self._thresholds), "AR"]
        rows = []
        for budget in budgets:
            sizes = {size: suffix + budget for size, suffix in _SUFFIXES.items()}
            parts = {part: f"{budget}-{part}" for part in self._parts}
            for of, suffix in {**sizes, **parts}.items():
                values = [results[metric + suffix] for metric in metrics]
                rows.append([budget.lstrip("@") or "as configured", of, *values])
        headers = ["#proposals", "objects", *(f"IoU {t:g}" for t in self._thresholds), "AR"]
        return format_table(headers, rows)

    def _curves(self, pairs: Pairs, every: np.ndarray, most: int) -> dict[str, Any]:
        numbers = sorted({*self._budgets, *CURVE_BUDGETS})
        overlaps = covered_overlaps(pairs, self._images, numbers, every)[:, 0]  # one pass for both
        at = dict(zip(numbers, overlaps))
        used = [k for k in numbers if k <= most]
        by_number = np.stack([at[k] for k in used])
        return {
            "iou": CURVE_THRESHOLDS,
            "recall_vs_iou": {str(k): recall(at[k], CURVE_THRESHOLDS) for k in self._budgets},
            "num_proposals": used,
            "recall_vs_num": {
                "AR": average_recall(by_number),
                **{f"{t:g}": recall(by_number, [t])[:, 0] for t in self._thresholds},
            },
        }
