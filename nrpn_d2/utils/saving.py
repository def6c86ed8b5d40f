"""Files that are whole or absent, and the best checkpoint of a run."""

import logging
import math
import os
from contextlib import contextmanager, suppress
from uuid import uuid4

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict

from .safe_load import load_file


@contextmanager
def atomic_open(path: str, mode: str):
    """Open ``path`` for writing; it is replaced once all is on the disk, or stays as it was.

    Several processes may write the same path: the last one wins. After an error (a full disk)
    nothing is left beside it; after a kill "<name>.<32 hex digits>.<suffix>.tmp" is.

    Raises:
        OSError: naming ``path``.
    """
    stem, suffix = os.path.splitext(path)
    temporary = f"{stem}.{uuid4().hex}{suffix}.tmp"
    try:
        with open(temporary, mode) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.remove(temporary)
        # torch.save hides a full disk behind an error of its own
        failure = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(failure, OSError):
            raise OSError(failure.errno, failure.strerror, path) from error
        raise


def best_metric(cfg: CfgNode) -> str:
    """``SOLVER.BEST_METRIC``; by default AP50 or, without detections, AR at most proposals."""
    if cfg.SOLVER.BEST_METRIC:
        return cfg.SOLVER.BEST_METRIC
    metric = "bbox/AP50"
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        metric = f"box_proposals/AR@{max(cfg.TEST.PROPOSALS.BUDGETS)}"
    several = len(cfg.DATASETS.TEST) > 1
    return f"{cfg.DATASETS.TEST[0]}/{metric}" if several else metric


class BestCheckpoint(HookBase):
    """Writes model_best.pth whenever an evaluation gives the best value so far.

    It stands after Detectron2's ``EvalHook``, in the main process only. A resumed run goes on from
    the value in the file.
    """

    NAME = "model_best"

    def __init__(self, checkpointer, metric: str):
        """
        Args:
            checkpointer: an ``NRPNCheckpointer``.
            metric: of the evaluation's results, such as "bbox/AP50"; larger is better.
        """
        self.checkpointer = checkpointer
        self.metric = metric
        self.value = -math.inf
        self._results = None
        self._logger = logging.getLogger(__name__)

    def before_train(self):
        path = os.path.join(self.checkpointer.save_dir, f"{self.NAME}.pth")
        if self.trainer.start_iter > 0 and os.path.isfile(path):
            best = load_file(path, mmap=True).get("best", {})
            if best.get("metric") == self.metric:
                self.value = best["value"]
                self._logger.info("Best %s so far: %.4f", self.metric, self.value)

    def after_step(self):
        self._save_if_best()

    def after_train(self):
        self._save_if_best()

    def _save_if_best(self):
        """
        Raises:
            KeyError: if an evaluation did not give the metric.
        """
        results = getattr(self.trainer, "_last_eval_results", None)
        if results is None or results is self._results:
            return
        self._results = results
        values = flatten_results_dict(results)
        if self.metric not in values:
            raise KeyError(
                f"SOLVER.BEST_METRIC is {self.metric!r}; the evaluation gave {', '.join(values)}"
            )
        value, iteration = float(values[self.metric]), self.trainer.iter
        if math.isnan(value):
            self._logger.warning("%s is not defined: %s.pth stays", self.metric, self.NAME)
        elif value > self.value:
            self.value = value
            best = {"metric": self.metric, "value": value, "iteration": iteration}
            self.checkpointer.write(self.NAME, iteration=iteration, best=best)
