"""The evaluators' common part: accumulate per image, gather over processes, then compute."""

import logging
import numpy as np

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from .boxes import check_boxes
from .ground_truth import load_ground_truth

logger = logging.getLogger(__name__)


class PerImageEvaluator(DatasetEvaluator):
    """
    Keeps one record per image; subclasses read it from an output and compute from all.

    After ``evaluate``, the main process has ``curves`` (dict): what figures are drawn from.
    """

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
        self.curves = {}

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
            OrderedDict: task -> {metric: value}, nan where nothing is to be found; None on all
            processes but the main one.
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


def read_proposals(output, origin):
    """
    Args:
        output (dict): of a ProposalNetwork or :class:`BudgetedModel`.
        origin (str): starts the message of a ValueError.

    Returns:
        ndarray, ndarray: boxes (K, 4) and objectness logits (K,), best first.
    """
    if "proposals" not in output:
        raise ValueError(
            f"{origin}: the output has no 'proposals'; wrap a GeneralizedRCNN in "
            "nrpn_d2.evaluation.with_budgets(model, budgets)"
        )
    boxes = output["proposals"].proposal_boxes.tensor.cpu().numpy()
    logits = output["proposals"].objectness_logits.cpu().numpy()
    check_boxes(boxes, logits, origin)
    if (logits[1:] > logits[:-1]).any():
        order = np.argsort(-logits, kind="stable")
        return boxes[order], logits[order]
    return boxes, logits
