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

        Raises:
            ValueError: as :meth:`process`, and for images that several processes processed.
            RuntimeError: on the processes that wait for one on which something was raised.
        """
        together(self._complete)
        gathered = comm.gather(self._records, dst=0)
        return together(lambda: self._merge(gathered) if comm.is_main_process() else None)

    def _merge(self, gathered):
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
        """The record of image n; ``origin`` starts the message of a ValueError."""
        raise NotImplementedError

    def _complete(self):
        """Finish the records of this process."""

    def _compute(self, records):
        raise NotImplementedError


def together(function):
    """
    Call ``function`` on every process; where it raises on one, all raise instead of waiting for it.

    Raises:
        RuntimeError: on the other processes.
    """
    result = error = None
    try:
        result = function()
    except Exception as e:
        error = e
    messages = comm.all_gather(error and f"{type(error).__name__}: {error}")
    if error:
        raise error
    for rank, message in enumerate(messages):
        if message:
            raise RuntimeError(f"process {rank} failed in the evaluation: {message}")
    return result


def read_proposals(output, origin):
    """
    Args:
        output (dict): of a ProposalNetwork or :class:`BudgetedModel`.
        origin (str): starts the message of a ValueError.

    Returns:
        ndarray, ndarray: boxes (K, 4) and objectness logits (K,), as they come.
    """
    if "proposals" not in output:
        raise ValueError(
            f"{origin}: the output has no 'proposals'; wrap a GeneralizedRCNN in "
            "nrpn_d2.evaluation.with_budgets(model, budgets)"
        )
    proposals = output["proposals"]
    return proposals.proposal_boxes.tensor.cpu().numpy(), proposals.objectness_logits.cpu().numpy()


def best_first(boxes, logits, origin):
    """
    Boxes (K, 4) and logits (K,) in the order of the logits, checked by :func:`check_boxes`.
    """
    check_boxes(boxes, logits, origin)
    if (logits[1:] > logits[:-1]).any():
        order = np.argsort(-logits, kind="stable")
        return boxes[order], logits[order]
    return boxes, logits
