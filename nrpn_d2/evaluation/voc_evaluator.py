"""VOC average precision as a DatasetEvaluator of Detectron2."""

import logging
from collections import OrderedDict

import numpy as np
from detectron2.data import MetadataCatalog

from .boxes import check_boxes
from .evaluator import PerImageEvaluator
from .recall import AR_THRESHOLDS
from .report import detection_table
from .voc_ap import METRICS, Detections, evaluate_as_detectron2, evaluate_detections

logger = logging.getLogger(__name__)


class VOCDetectionEvaluator(PerImageEvaluator):
    """
    Average precision as in PASCAL VOC, exact and unrounded, at IoU 0.5, 0.75 and 0.5:0.05:0.95.

    ``evaluate`` returns the task "bbox" with "AP", "AP50", "AP75" and, for each class, "AP-name",
    "AP50-name", "AP75-name", all in percent and by the dataset's metric: eleven points for VOC
    2007, area otherwise. Keys like "AP50_area" or "AP50_11point"
    ("AP50_area-name") give the other metric. Outputs with ``instances_at`` (see
    :class:`BudgetedModel`) give a task "bbox@K" for each budget K; "bbox" is the largest.

    A class without an object is nan and left out of the mean. Crowds of COCO-format datasets are
    matched as VOC's difficult objects are, by IoU.

    ``curves["precision_recall"]`` is {task: {class name: PrecisionRecall at IoU 0.5}}, of
    the classes that have objects.
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
        self._metrics = {metric: "", **{other: f"_{other}" for other in METRICS if other != metric}}
        self._compat = compat

    def _read(self, output, n, origin):
        if "instances" not in output:
            raise ValueError(
                f"{origin}: the output has no 'instances'; AP needs a detector, a ProposalNetwork "
                "has proposals only"
            )
        at = output.get("instances_at") or {None: output["instances"]}
        return {budget: self._read_instances(found, origin) for budget, found in at.items()}

    def _read_instances(self, instances, origin):
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
        return classes.astype(np.int32), scores.copy(), boxes.copy()  # and let go of the tensors

    def _compute(self, records):
        budgets = sorted({b for record in records.values() for b in record if b is not None})
        results, curves = OrderedDict(), {}
        for budget in budgets or [None]:
            parts = {n: record[budget] for n, record in records.items()}
            task = "bbox" if budget is None else f"bbox@{budget}"
            results[task], curves[task] = self._evaluate_budget(parts)
        if budgets:
            results["bbox"], curves["bbox"] = results[task], curves[task]
        self.curves = {"precision_recall": curves}
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
        images = np.repeat(
            np.array([*parts], int), [len(scores) for _, scores, _ in parts.values()]
        )
        empty = np.empty(0, np.int32), np.empty(0, np.float32), np.empty((0, 4), np.float32)
        detections = Detections(images, *map(np.concatenate, zip(empty, *parts.values())))
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
        return results, {names[c]: curves[c] for c in sorted(self._present())}
