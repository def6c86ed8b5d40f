"""Proposal recall as a DatasetEvaluator of Detectron2."""

import logging
from collections import OrderedDict

import numpy as np

from .boxes import box_area, box_iou
from .evaluator import PerImageEvaluator, best_first, read_proposals
from .recall import (
    SIZE_RANGES,
    Pairs,
    average_recall,
    close_pairs,
    covered_overlaps,
    in_size_ranges,
    recall,
    side_by_side,
)
from .report import recall_table

logger = logging.getLogger(__name__)

# Where the curves over the number of proposals are sampled: evenly on a logarithmic scale.
CURVE_BUDGETS = tuple(np.unique(np.logspace(0, 4, 33).astype(int)).tolist())
CURVE_THRESHOLDS = np.round(np.arange(0.5, 1.0, 0.01), 2)


# Images that are matched at once: few calls of numpy, and arrays that stay in the cache.
BLOCK = 64


class ProposalRecallEvaluator(PerImageEvaluator):
    """
    Recall of the K best proposals of each image, class-agnostic, for ``proposals`` with
    ``proposal_boxes`` and ``objectness_logits`` (ProposalNetwork, :class:`BudgetedModel`).

    ``evaluate`` returns the task "box_proposals", in percent: "AR@K" (mean over IoU
    0.5:0.05:0.95), "R50@K" (recall at IoU 0.5; one for each threshold), the same for small, medium
    and large objects ("ARs@K", "R50m@K", ...), and "AR@K-name", "R50@K-name" for the objects of a
    class; matching is class-agnostic for these, too. nan where there is no object.

    ``curves["recall"]`` holds arrays in [0, 1]: "iou" (50,) with "recall_vs_iou" {K:
    (50,)}, and "num_proposals" (P,) with "recall_vs_num" {IoU: (P,), "AR": (P,)}.
    """

    def __init__(
        self,
        dataset_name,
        *,
        budgets=(50, 100, 300),
        iou_thresholds=(0.5, 0.7, 0.9),
        size_ranges=SIZE_RANGES,
        matching="greedy",
        ground_truth=None,
    ):
        """
        Args:
            dataset_name (str): a name in DatasetCatalog.
            budgets (Sequence[int]): numbers of proposals.
            iou_thresholds (Sequence[float]): in (0, 1].
            size_ranges (dict): name -> (lowest, highest) area of the box (COCO has that of the
                mask) in square pixels of the original image, the highest not included. "all" is
                always there.
            matching (str): "greedy" (one-to-one) or "best", see :func:`covered_overlaps`.
            ground_truth (GroundTruth): of the dataset, if it is already loaded.
        """
        super().__init__(dataset_name, ground_truth=ground_truth)
        if not iou_thresholds or not all(0 < t <= 1 for t in iou_thresholds):
            raise ValueError(f"IoU thresholds must be in (0, 1], got {list(iou_thresholds)}")
        to_find = ~self.ground_truth.ignored
        self._objects = self.ground_truth.boxes[to_find]
        self._images = self.ground_truth.images[to_find]
        every_image = np.arange(len(self.ground_truth.image_index) + 1)
        self._first = np.searchsorted(self._images, every_image).tolist()
        self._budgets = sorted(budgets)
        self._all_budgets = sorted({*budgets, *CURVE_BUDGETS})
        self._thresholds = list(iou_thresholds)
        self._floor = min(0.5, *self._thresholds)
        self._size_ranges = {**size_ranges, "all": (0.0, np.inf)}
        self._every = list(self._size_ranges).index("all")
        self._matching = matching

    def reset(self):
        super().reset()
        self._waiting = []

    def process(self, inputs, outputs):
        """See :meth:`PerImageEvaluator.process`. Boxes are checked 64 images at a time, the last
        ones in ``evaluate``."""
        super().process(inputs, outputs)
        if len(self._waiting) >= BLOCK:
            self._complete()

    def _read(self, output, n, origin):
        self._waiting.append((n, origin, *read_proposals(output, origin)))

    def _complete(self):
        if not self._waiting:
            return
        images, origins, boxes, logits = zip(*self._waiting)
        self._waiting = []
        stacked = side_by_side(boxes)
        if not _in_order(stacked, boxes, logits):
            boxes = [best_first(*image)[0] for image in zip(boxes, logits, origins)]
            stacked = side_by_side(boxes)
        objects = [self._objects[self._of_image(n)] for n in images]
        rows, g, k = close_pairs(objects, stacked, self._floor)
        g += np.array([self._first[n] for n in images], int)[rows]
        iou = box_iou(self._objects[g], np.concatenate(boxes)[_starts(boxes)[rows] + k])
        close = iou >= self._floor
        rows, *pairs = (array[close] for array in (rows, g, k, iou))
        bounds = np.searchsorted(rows, np.arange(len(images) + 1)).tolist()
        for n, b, start, end in zip(images, boxes, bounds, bounds[1:]):
            self._records[n] = len(b), *(array[start:end].copy() for array in pairs)

    def _of_image(self, n):
        """The slice of the objects of image n among those to be found."""
        return slice(self._first[n], self._first[n + 1])

    def _compute(self, records):
        in_range = in_size_ranges(box_area(self._objects), self._size_ranges)
        pairs = self._pairs(records)

        def overlaps(budgets, in_range):
            return covered_overlaps(pairs, self._images, budgets, in_range, self._matching)

        by_size = overlaps(self._budgets, in_range)
        results = self._results(by_size, self.ground_truth.classes[~self.ground_truth.ignored])
        most_proposals = max((record[0] for record in records.values()), default=0)
        every = overlaps(self._all_budgets, in_range[[self._every]])[:, 0]
        self.curves = {"recall": self._curves(every, most_proposals)}
        logger.info(
            f"Recall (%) of proposals on {self.ground_truth.dataset_name}, "
            f"{len(self._objects)} objects in {len(self.ground_truth.image_index)} images:\n"
            + recall_table(results, self._budgets, self._size_ranges, self._thresholds)
        )
        return OrderedDict(box_proposals=results)

    @staticmethod
    def _pairs(records):
        empty = np.empty(0, int), np.empty(0, int), np.empty(0)
        parts = [records[n][1:] for n in sorted(records)]
        return Pairs(*map(np.concatenate, zip(empty, *parts)))

    def _results(self, overlaps, classes):
        results = OrderedDict()
        for budget, at_budget in zip(self._budgets, overlaps):  # (Z, G)
            for size, covered in zip(self._size_ranges, at_budget):
                suffix = "" if size == "all" else size.lower()
                results[f"AR{suffix}@{budget}"] = 100 * float(average_recall(covered))
                for t, value in zip(self._thresholds, recall(covered, self._thresholds)):
                    results[f"R{100 * t:g}{suffix}@{budget}"] = 100 * float(value)
            every = at_budget[self._every]
            for c, name in enumerate(self.ground_truth.class_names):
                of_class = every[classes == c]
                results[f"AR@{budget}-{name}"] = 100 * float(average_recall(of_class))
                for t, value in zip(self._thresholds, recall(of_class, self._thresholds)):
                    results[f"R{100 * t:g}@{budget}-{name}"] = 100 * float(value)
        return results

    def _curves(self, every, most_proposals):
        used = [b for b, k in enumerate(self._all_budgets) if k <= max(most_proposals, 1)]
        by_number = recall(every[used], self._thresholds)
        return {
            "iou": CURVE_THRESHOLDS,
            "recall_vs_iou": {
                k: recall(every[self._all_budgets.index(k)], CURVE_THRESHOLDS)
                for k in self._budgets
            },
            "num_proposals": np.array([self._all_budgets[b] for b in used]),
            "recall_vs_num": {
                "AR": average_recall(every[used]),
                **{t: by_number[:, i] for i, t in enumerate(self._thresholds)},
            },
        }


def _starts(boxes):
    """Where the boxes of each image begin when all are concatenated."""
    counts = [len(of_image) for of_image in boxes]
    return np.cumsum(counts) - counts


def _in_order(stacked, boxes, logits):
    """Whether ``best_first`` would leave each image as it is; False if that is not certain."""
    counts = [len(of_image) for of_image in boxes]
    if [of_image.shape for of_image in logits] != [(k,) for k in counts]:
        return False
    logits = np.concatenate(logits)
    descending = logits[1:] <= logits[:-1]  # false for NaN, too
    ends = np.cumsum(counts)[:-1]
    descending[ends[(ends > 0) & (ends < len(logits))] - 1] = True  # from one image to the next
    x0, y0, x1, y1 = stacked
    upright = (x1 >= x0).all() and (y1 >= y0).all()
    finite = np.isfinite(stacked.sum()) and np.isfinite(logits.sum())
    return bool(upright and finite and descending.all())
