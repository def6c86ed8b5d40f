"""VOC average precision as a DatasetEvaluator of Detectron2."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances

from ..utils.boxes import check_boxes
from .evaluator import PerImageEvaluator, format_table
from .figures import precision_recall_figure
from .ground_truth import GroundTruth
from .recall import AR_THRESHOLDS
from .voc_ap import METRICS, evaluate_detections, precision_at

logger = logging.getLogger(__name__)

RECALL_LEVELS = np.arange(101) / 100  # rounded as a recall of 35 / 100 is; np.linspace differs


class VOCDetectionEvaluator(PerImageEvaluator):
    """Average precision as in PASCAL VOC, exact and unrounded, at IoU 0.5, 0.75 and 0.5:0.05:0.95.

    ``evaluate`` returns the task "bbox", of the model as it is configured, with "AP", "AP50",
    "AP75" and, for each class, "AP-name", "AP50-name", "AP75-name", all in percent and by the
    dataset's metric: eleven points if the ``year`` in its metadata is 2007, area otherwise. Keys
    like "AP50_area" or "AP50_11point" ("AP50_area-name") give the other metric. Outputs with
    ``instances_at`` (see :class:`BudgetedModel`) give a task "bbox@K" for each budget K.

    A class without an object is nan and left out of the mean. Crowds of COCO-format datasets are
    matched as VOC's difficult objects are, by IoU.

    ``curves["precision_recall"]`` is {task: {class name: best precision at each of RECALL_LEVELS or
    more, IoU 0.5}}, of the classes that have objects.
    """

    figures = {"precision_recall": precision_recall_figure}

    @classmethod
    def from_config(cls, cfg: CfgNode, truth: GroundTruth) -> "VOCDetectionEvaluator | None":
        is_detector = cfg.MODEL.META_ARCHITECTURE != "ProposalNetwork"
        return super().from_config(cfg, truth) if is_detector else None

    @staticmethod
    def compare(results: dict[str, dict[str, float]]) -> Iterator[tuple[str, str, float]]:
        for task, metrics in results.items():
            name, _, budget = task.partition("@")
            if name == "bbox" and "AP50" in metrics:
                yield "mAP, IoU 0.5", budget or "as configured", metrics["AP50"]

    def __init__(self, dataset_name: str, **common: Any):
        super().__init__(dataset_name, **common)
        year = MetadataCatalog.get(dataset_name).get("year")
        self._metric = "11point" if year == 2007 else "area"
        to_find = self.ground_truth.classes[~self.ground_truth.ignored]
        self._present = sorted(set(to_find.tolist()))  # classes with an object to be found

    def _read(self, output: dict[str, Any], n: int, origin: str) -> dict[str, tuple]:
        """Return task -> classes, scores and boxes of the detections."""
        tasks = {"bbox": output.get("instances")}
        tasks.update({f"bbox@{k}": found for k, found in output.get("instances_at", {}).items()})
        # Tasks with the same detections share their arrays
        distinct = {id(found): found for found in tasks.values()}
        arrays = {i: read_instances(x, self.ground_truth, origin) for i, x in distinct.items()}
        return {task: arrays[id(found)] for task, found in tasks.items()}

    def _compute(self, records: dict[int, Any]) -> dict[str, dict[str, float]]:
        tasks = next(iter(records.values()), {"bbox": None})
        results, curves = {}, {}
        for task in tasks:
            parts = {n: record[task] for n, record in records.items()}
            results[task], curves[task] = self._evaluate_task(parts)
        self.curves = {"precision_recall": curves}
        names = self.ground_truth.class_names
        absent = "class '%s' has no object to be found; its AP is n/a and left out of the mean"
        for c in sorted(set(range(len(names))) - set(self._present)):
            logger.warning(absent, names[c])
        logger.info(
            "Average precision (%%) at IoU 0.5 on %s, %s:\n%s",
            *(self.ground_truth.dataset_name, self._metric, self._table(results)),
        )
        return results

    def _evaluate_task(self, parts: dict[int, tuple]) -> tuple[dict[str, Any], dict[str, Any]]:
        counts = [len(scores) for _, scores, _ in parts.values()]
        images = np.repeat(np.array([*parts], int), counts)
        empty = np.empty(0, np.int32), np.empty(0, np.float32), np.empty((0, 4), np.float32)
        detections = images, *map(np.concatenate, zip(empty, *parts.values()))
        ap, curves = evaluate_detections(detections, self.ground_truth, AR_THRESHOLDS)
        names = self.ground_truth.class_names
        results = {}
        for metric in sorted(METRICS, key=self._metric.__ne__):  # the dataset's own first
            suffix = "" if metric == self._metric else f"_{metric}"
            for name, column in {"AP": slice(None), "AP50": [0], "AP75": [5]}.items():
                per_class = 100 * ap[metric][:, column].mean(axis=1)
                counted = per_class[self._present]
                results[name + suffix] = float(counted.mean()) if len(counted) else float("nan")
                for class_name, value in zip(names, per_class.tolist()):
                    results[f"{name}{suffix}-{class_name}"] = value
        return results, {names[c]: precision_at(curves[c], RECALL_LEVELS) for c in self._present}

    def _table(self, results: dict[str, dict[str, float]]) -> str:
        """Format as Table 1 of the paper, AP at IoU 0.5; over 20 classes are rows, not columns."""
        names = self.ground_truth.class_names
        columns = [*(f"AP50-{name}" for name in names), "AP50"]
        rows = [
            [task.partition("@")[2] or "as configured", *(metrics[key] for key in columns)]
            for task, metrics in results.items()
        ]
        headers = ["#proposals", *names, "mAP"]
        if len(names) > 20:
            headers, *rows = zip(headers, *rows)
        return format_table(headers, rows)


def read_instances(
    instances: Instances | None, ground_truth: GroundTruth, origin: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return classes (D,), scores (D,) and boxes (D, 4) of the detections of one image.

    Raises:
        ValueError: they are None, or do not belong to the dataset.
    """
    if instances is None:
        reason = "AP needs a detector, a ProposalNetwork has proposals only"
        raise ValueError(f"{origin}: the output has no 'instances'; {reason}")
    boxes = instances.pred_boxes.tensor.cpu().numpy()
    scores = instances.scores.cpu().numpy()
    classes = instances.pred_classes.cpu().numpy()
    check_boxes(boxes, scores, origin)
    num_classes = len(ground_truth.class_names)
    if len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
        message = f"{origin}: predicted classes are {classes.min()} to {classes.max()}, but "
        message += f"'{ground_truth.dataset_name}' has {num_classes} classes"
        raise ValueError(f"{message}; check MODEL.ROI_HEADS.NUM_CLASSES")
    return classes.astype(np.int32), scores.copy(), boxes.copy()  # and let go of the tensors
