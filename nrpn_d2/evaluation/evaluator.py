"""What the evaluators have in common: accumulate per image, gather over processes, then compute."""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from matplotlib.figure import Figure
from scipy.special import expit
from tabulate import tabulate

from ..utils.boxes import check_boxes
from .ground_truth import GroundTruth, load_ground_truth

logger = logging.getLogger(__name__)


class PerImageEvaluator(DatasetEvaluator):
    """Keep one record per image; subclasses read it from an output and compute from all.

    All that belongs to an evaluator is in its class, and the class in ``EVALUATORS``.

    Attributes:
        curves: after ``evaluate``, in the main process: what figures are drawn from, by kind. Made
            of dicts with text as keys, lists, arrays and numbers, as JSON is.
        files: likewise, name -> JSON of its own beside the results.
        figures: kind -> function that draws {name of the run: curve of that kind}.
    """

    figures: Mapping[str, Callable[[dict[str, Any]], Figure]] = {}

    @classmethod
    def from_config(
        cls, cfg: CfgNode, truth: GroundTruth, **own: Any
    ) -> "PerImageEvaluator | None":
        """Build the evaluator; None where a model of this config gives it nothing to evaluate."""
        common = {"budgets": cfg.TEST.PROPOSALS.BUDGETS, "ground_truth": truth}
        return cls(truth.dataset_name, **common, **own)

    @staticmethod
    def compare(results: dict[str, dict[str, float]]) -> Iterator[tuple[str, str, float]]:
        """Yield the rows of a comparison of runs: metric in words, number of proposals, value.

        Args:
            results: of all evaluators of a run: task -> {metric: value}.
        """
        return iter(())

    def __init__(
        self,
        dataset_name: str,
        *,
        budgets: Sequence[int] = (50, 100, 300),
        ground_truth: GroundTruth | None = None,
    ):
        """Take the dataset's ``ground_truth``, or read it."""
        self.ground_truth = ground_truth or load_ground_truth(dataset_name)
        self._budgets = sorted(budgets)
        self.reset()

    def reset(self) -> None:
        self._records: dict[int, Any] = {}
        self.curves: dict[str, Any] = {}
        self.files: dict[str, Any] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """
        Raises:
            ValueError: an image is not in the dataset or was processed before, boxes or scores
                are not finite, or a box has a negative width or height.
        """
        for image, output in zip(inputs, outputs):
            n = self.ground_truth.index_of(image["image_id"])
            if n in self._records:
                raise ValueError(f"image {image['image_id']!r} was processed twice")
            self._records[n] = self._read(output, n, f"image {image['image_id']!r}")

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """
        Returns:
            task -> {metric: value}, nan where nothing is to be found; None on all processes but
            the main one.

        Raises:
            ValueError: as :meth:`process`, and for images that several processes processed.
            RuntimeError: on the processes that wait for one on which something was raised.
        """
        together(self._complete)
        gathered = comm.gather(self._records, dst=0)
        return together(lambda: self._merge(gathered) if comm.is_main_process() else None)

    def _merge(self, gathered: list[dict[int, Any]]) -> dict[str, dict[str, float]]:
        records: dict[int, Any] = {}
        for part in gathered:
            if records.keys() & part.keys():
                raise ValueError("several processes processed the same images")
            records.update(part)
        total = len(self.ground_truth.image_index)
        if len(records) < total:
            logger.warning(
                "%d of the %d images of '%s' were not processed; their objects count as missed",
                *(total - len(records), total, self.ground_truth.dataset_name),
            )
        return OrderedDict(self._compute(records))  # the type that Detectron2 v0.5 prints

    def _read(self, output: dict[str, Any], n: int, origin: str) -> Any:
        """Return the record of image n; ``origin`` starts the message of a ValueError."""
        raise NotImplementedError

    def _complete(self) -> None:
        """Finish the records of this process."""

    def _compute(self, records: dict[int, Any]) -> dict[str, dict[str, float]]:
        raise NotImplementedError


def together(function: Callable[[], Any]) -> Any:
    """Call ``function`` on all processes; if it raises on one, the others raise a RuntimeError."""
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


def read_proposals(output: dict[str, Any], origin: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the proposals of one image, checked, best first; equal ones as they come.

    Args:
        output: of a ProposalNetwork, :class:`BudgetedModel`, or :func:`evaluate_proposals`.
        origin: starts the message of a ValueError.

    Returns:
        boxes (K, 4); objectness logits (K,), descending numbers for proposals without any; and
        how many of them, the first ones, are those of the model as it is configured.
    """
    if "proposals" not in output:
        remedy = "wrap a GeneralizedRCNN in nrpn_d2.evaluation.with_budgets(model, budgets)"
        raise ValueError(f"{origin}: the output has no 'proposals'; {remedy}")
    proposals = output.get("most_proposals", output["proposals"])
    boxes = proposals.proposal_boxes.tensor.cpu().numpy()
    if proposals.has("objectness_logits"):
        logits = proposals.objectness_logits.cpu().numpy()
    else:
        logits = -np.arange(len(boxes), dtype=np.float32)
    check_boxes(boxes, logits, origin)
    if (logits[1:] > logits[:-1]).any():
        order = np.argsort(-logits, kind="stable")
        boxes, logits = boxes[order], logits[order]
    return boxes, logits, len(output["proposals"])


def read_scores(output: dict[str, Any], origin: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return what :func:`read_proposals` does, with the logits' sigmoid or nan without logits."""
    boxes, logits, configured = read_proposals(output, origin)
    scores = expit(logits.astype(np.float64))
    if not output["proposals"].has("objectness_logits"):
        scores[:] = np.nan
    return boxes, scores, configured


def format_table(headers: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Format a table for the log; floats have two decimals, nan is n/a."""

    def cell(x: Any) -> Any:
        return x if not isinstance(x, float) else "n/a" if math.isnan(x) else f"{x:.2f}"

    cells = [[cell(x) for x in row] for row in rows]
    return tabulate(cells, headers=headers, disable_numparse=True, stralign="right")
