"""Evaluators in Detectron2's sense: accumulate per image, gather over processes, then compute."""

import logging
from collections import OrderedDict
import numpy as np

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from .boxes import box_area, box_iou, check_boxes
from .ground_truth import load_ground_truth
from .recall import AR_THRESHOLDS, SIZE_RANGES, average_recall, covered_overlaps, in_size_ranges
from .recall import recall
from .report import detection_table, recall_table
from .voc_ap import METRICS, Detections, evaluate_as_detectron2, evaluate_detections

logger = logging.getLogger(__name__)

# Where the curves over the number of proposals are sampled: evenly on a logarithmic scale.
CURVE_BUDGETS = tuple(np.unique(np.logspace(0, 4, 33).astype(int)).tolist())
CURVE_THRESHOLDS = np.round(np.arange(0.5, 1.0, 0.01), 2)


class PerImageEvaluator(DatasetEvaluator):
    """Keeps one record per image; subclasses read it from an output and compute from all."""

    def __init__(self, dataset_name, *, ground_truth=None):
        """
        Args:
            dataset_name (str): a name in DatasetCatalog.
            ground_truth (GroundTruth): of the dataset, if it is already loaded.
        """
        self.ground_truth = ground_truth or load_ground_truth(dataset_name)
        self.reset()

    def reset(self):
        self._records = {}

    def process(self, inputs, outputs):
        """
        Raises:
            ValueError: for an image that is not in the dataset or was processed before, for boxes
                or scores that are not finite, and for boxes of negative width or height.
        """
        for image, output in zip(inputs, outputs):
            n = self.ground_truth.index_of(image["image_id"])
            if n in self._records:
                raise ValueError(f"image {image['image_id']!r} was processed twice")
            self._records[n] = self._read(output, n, f"image {image['image_id']!r}")

    def evaluate(self):
        """
        Returns:
            OrderedDict: task -> {metric: value in percent}, nan where nothing is to be found; None
            on all processes but the main one.
        """
        gathered = comm.gather(self._records, dst=0)
        if not comm.is_main_process():
            return None
        records = {}
        for part in gathered:
            if records.keys() & part.keys():
                raise ValueError("several processes processed the same images")
            records.update(part)
        missing = len(self.ground_truth.image_index) - len(records)
        if missing:
            logger.warning(
                f"{missing} of the {len(self.ground_truth.image_index)} images of "
                f"'{self.ground_truth.dataset_name}' were not processed; their objects count as "
                "not found"
            )
        return self._compute(records)

    def _read(self, output, n, origin):
        raise NotImplementedError

    def _compute(self, records):
        raise NotImplementedError


class VOCDetectionEvaluator(PerImageEvaluator):
    """
    Average precision as in PASCAL VOC, exact and unrounded, at IoU 0.5, 0.75 and 0.5:0.05:0.95.

    ``evaluate`` returns the task "bbox" with "AP", "AP50", "AP75" and, for each class, "AP-name",
    "AP50-name", "AP75-name", all in percent and by the dataset's metric: eleven points for VOC
    2007, area otherwise. Keys with the suffix "-area" or "-11point" ("AP50-area",
    "AP50-area-name") give the other metric. Outputs with ``instances_at`` (see
    :class:`BudgetedModel`) give a task "bbox@K" for each budget K; "bbox" is the largest.

    A class without an object is nan and left out of the mean.

    After ``evaluate``, ``curves`` holds {task: {class name: PrecisionRecall at IoU 0.5}}.
    """

    def __init__(self, dataset_name, *, metric=None, compat=False, ground_truth=None):
        """
        Args:
            dataset_name (str): a name in DatasetCatalog.
            metric (str): "11point" or "area"; None: by the ``year`` in the dataset's metadata.
            compat (bool): the numbers of Detectron2's PascalVOCDetectionEvaluator, digit for digit.
            ground_truth (GroundTruth): of the dataset, if it is already loaded.
        """
        super().__init__(dataset_name, ground_truth=ground_truth)
        year = MetadataCatalog.get(dataset_name).get("year")
        metric = metric or ("11point" if year == 2007 else "area")
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {METRICS}, got {metric!r}")
        self._metrics = {metric: "", **{other: f"-{other}" for other in METRICS if other != metric}}
        self._compat = compat

    def _read(self, output, n, origin):
        if "instances" not in output:
            raise ValueError(
                f"{origin}: the output has no 'instances'; AP needs a detector, a ProposalNetwork "
                "has proposals only"
            )
        at = output.get("instances_at") or {None: output["instances"]}
        return {budget: self._read_instances(found, n, origin) for budget, found in at.items()}

    def _read_instances(self, instances, n, origin):
        boxes = instances.pred_boxes.tensor.cpu().numpy()
        scores = instances.scores.cpu().numpy()
        classes = instances.pred_classes.cpu().numpy()
        check_boxes(boxes, scores, origin)
        num_classes = len(self.ground_truth.class_names)
        if len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
            raise ValueError(
                f"{origin}: predicted classes are {classes.min()} to {classes.max()}, but "
                f"'{self.ground_truth.dataset_name}' has {num_classes} classes; check "
                "MODEL.ROI_HEADS.NUM_CLASSES"
            )
        return Detections(np.full(len(boxes), n), classes, scores, boxes)

    def _compute(self, records):
        budgets = sorted({b for record in records.values() for b in record if b is not None})
        results, self.curves = OrderedDict(), {}
        for budget in budgets or [None]:
            parts = [record[budget] for record in records.values()]
            task = "bbox" if budget is None else f"bbox@{budget}"
            results[task], self.curves[task] = self._evaluate_budget(parts)
        if budgets:
            results["bbox"], self.curves["bbox"] = results[task], self.curves[task]
        absent = sorted(set(range(len(self.ground_truth.class_names))) - self._present())
        for c in absent:
            logger.warning(
                f"class '{self.ground_truth.class_names[c]}' has no object to be found"
                + ("" if self._compat else "; its AP is n/a and left out of the mean")
            )
        rows = {budget: results[f"bbox@{budget}"] for budget in budgets} or {"all": results["bbox"]}
        logger.info(
            f"Average precision (%) at IoU 0.5 on {self.ground_truth.dataset_name}, "
            f"{next(iter(self._metrics))}:\n{detection_table(rows, self.ground_truth.class_names)}"
        )
        return results

    def _present(self):
        return set(self.ground_truth.classes[~self.ground_truth.ignored].tolist())

    def _evaluate_budget(self, parts):
        empty = Detections(*(np.empty(0, int),) * 2, np.empty(0, "f4"), np.empty((0, 4), "f4"))
        detections = Detections(*map(np.concatenate, zip(empty, *parts)))
        evaluate = evaluate_as_detectron2 if self._compat else evaluate_detections
        ap, curves = evaluate(detections, self.ground_truth, AR_THRESHOLDS)

        names = self.ground_truth.class_names
        results = OrderedDict()
        columns = {"AP": slice(None), "AP50": [0], "AP75": [5]}
        for metric, suffix in self._metrics.items():
            for name, column in columns.items():
                per_class = 100 * ap[metric][:, column].mean(axis=1)
                counted = per_class if self._compat else per_class[sorted(self._present())]
                results[name + suffix] = float(counted.mean()) if len(counted) else float("nan")
                for class_name, value in zip(names, per_class):
                    results[f"{name}{suffix}-{class_name}"] = float(value)
        return results, {name: curves[c][0] for c, name in enumerate(names)}


class ProposalRecallEvaluator(PerImageEvaluator):
    """
    Recall of the K best proposals of each image, class-agnostic, for ``proposals`` with
    ``proposal_boxes`` and ``objectness_logits`` (ProposalNetwork, :class:`BudgetedModel`).

    ``evaluate`` returns the task "box_proposals", in percent: "AR@K" (mean over IoU
    0.5:0.05:0.95), "R50@K" (recall at IoU 0.5; one for each threshold), the same for small, medium
    and large objects ("ARs@K", "R50m@K", ...), and "R50@K-name" for the objects of a class. nan
    where there is no object.

    After ``evaluate``, ``curves`` holds arrays in [0, 1]: "iou" (50,) with "recall_vs_iou" {K:
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
            size_ranges (dict): name -> (lowest, highest) area in square pixels of the original
                image, the highest not included; "all" has the keys without a letter.
            matching (str): "greedy" (one-to-one) or "best", see :func:`covered_overlaps`.
            ground_truth (GroundTruth): of the dataset, if it is already loaded.
        """
        super().__init__(dataset_name, ground_truth=ground_truth)
        if not iou_thresholds or not all(0 < t <= 1 for t in iou_thresholds):
            raise ValueError(f"IoU thresholds must be in (0, 1], got {list(iou_thresholds)}")
        self._budgets = sorted(budgets)
        self._all_budgets = sorted({*budgets, *CURVE_BUDGETS})
        self._thresholds = list(iou_thresholds)
        self._floor = min(0.5, *self._thresholds)
        self._size_ranges = dict(size_ranges)
        self._matching = matching

    def _read(self, output, n, origin):
        if "proposals" not in output:
            raise ValueError(
                f"{origin}: the output has no 'proposals'; wrap a GeneralizedRCNN in "
                "nrpn_d2.evaluation.with_budgets(model, budgets)"
            )
        boxes = output["proposals"].proposal_boxes.tensor.cpu().numpy()
        scores = output["proposals"].objectness_logits.cpu().numpy()
        check_boxes(boxes, scores, origin)
        boxes = boxes[np.argsort(-scores, kind="stable")]
        objects = self._counted_boxes(n)
        overlaps = covered_overlaps(
            box_iou(boxes[:, None], objects[None]),
            self._all_budgets,
            in_size_ranges(box_area(objects), self._size_ranges),
            self._floor,
            self._matching,
        )
        return len(boxes), overlaps

    def _counted_boxes(self, n):
        of_image = self.ground_truth.of_image(n)
        return self.ground_truth.boxes[of_image][~self.ground_truth.ignored[of_image]]

    def _compute(self, records):
        counted = ~self.ground_truth.ignored
        images = self.ground_truth.images[counted]
        in_range = in_size_ranges(box_area(self.ground_truth.boxes[counted]), self._size_ranges)
        missed = np.where(in_range, 0.0, np.nan)
        overlaps = np.repeat(missed[None], len(self._all_budgets), axis=0)
        for n, (_, of_image) in records.items():
            overlaps[:, :, slice(*np.searchsorted(images, (n, n + 1)))] = of_image

        results = self._results(overlaps, self.ground_truth.classes[counted])
        self.curves = self._curves(overlaps, max((k for k, _ in records.values()), default=0))
        logger.info(
            f"Recall (%) of proposals on {self.ground_truth.dataset_name}, {len(images)} objects in "
            f"{len(self.ground_truth.image_index)} images:\n"
            + recall_table(results, self._budgets, self._size_ranges, self._thresholds)
        )
        return OrderedDict(box_proposals=results)

    def _results(self, overlaps, classes):
        results = OrderedDict()
        for budget in self._budgets:
            at_budget = overlaps[self._all_budgets.index(budget)]  # (Z, G)
            for size, covered in zip(self._size_ranges, at_budget):
                suffix = "" if size == "all" else size.lower()
                results[f"AR{suffix}@{budget}"] = 100 * float(average_recall(covered))
                for t, value in zip(self._thresholds, recall(covered, self._thresholds)):
                    results[f"R{100 * t:g}{suffix}@{budget}"] = 100 * float(value)
            if "all" not in self._size_ranges:
                continue
            every = at_budget[list(self._size_ranges).index("all")]
            for c, name in enumerate(self.ground_truth.class_names):
                for t, value in zip(self._thresholds, recall(every[classes == c], self._thresholds)):
                    results[f"R{100 * t:g}@{budget}-{name}"] = 100 * float(value)
        return results

    def _curves(self, overlaps, most_proposals):
        if "all" not in self._size_ranges:
            return {}
        every = overlaps[:, list(self._size_ranges).index("all")]  # (B, G)
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
