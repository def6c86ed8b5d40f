"""Hooks of the trainer: the best checkpoint, a PreciseBN that resumes, keys that do not fit."""

import logging
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.engine.hooks import PreciseBN
from detectron2.evaluation import DatasetEvaluators
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import update_bn_stats

from ..checkpoint.checkpointer import NRPNCheckpointer
from ..data.anchors.reach import anchor_levels
from ..data.hints import data_hints
from ..data.loader import TrainLoader
from ..evaluation import WritingEvaluators
from ..utils.safe_load import load_file
from .train_loop import rpns_of

logger = logging.getLogger(__name__)


def best_metric(cfg: CfgNode) -> str:
    """Return ``SOLVER.BEST_METRIC``; by default AP50 or, without detections, AR."""
    if cfg.SOLVER.BEST_METRIC:
        return cfg.SOLVER.BEST_METRIC
    only_proposes = cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork"
    metric = "box_proposals/AR" if only_proposes else "bbox/AP50"
    several = len(cfg.DATASETS.TEST) > 1
    return f"{cfg.DATASETS.TEST[0]}/{metric}" if several else metric


def check_best_metric(cfg: CfgNode, build_evaluator: Callable) -> None:
    """Check that the evaluation gives SOLVER.BEST_METRIC, by one without predictions.

    Args:
        build_evaluator: config and dataset -> evaluator. Only those of this package are checked.

    Raises:
        ValueError: naming the results that an evaluation gives; in all processes.
    """
    results = {}
    for name in cfg.DATASETS.TEST if cfg.SOLVER.BEST_METRIC else ():
        evaluators = build_evaluator(cfg, name)
        if not isinstance(evaluators, WritingEvaluators):
            return
        logging.disable(logging.WARNING)
        try:
            results[name] = DatasetEvaluators.evaluate(evaluators)  # without writing
        finally:
            logging.disable(logging.NOTSET)
    results = results if len(results) > 1 else next(iter(results.values()), {})
    names = comm.all_gather(list(flatten_results_dict(results)))[0]
    if names and cfg.SOLVER.BEST_METRIC not in names:
        raise _no_such_metric(cfg.SOLVER.BEST_METRIC, names)


def _no_such_metric(metric: str, names: Iterable[str]) -> ValueError:
    return ValueError(f"SOLVER.BEST_METRIC is {metric!r}; the evaluation gives {', '.join(names)}")


class BestCheckpoint(HookBase):
    """Writes model_best.pth whenever an evaluation gives the best value so far.

    It stands after Detectron2's ``EvalHook``, in the main process only. A resumed run goes on from
    the value in the file.
    """

    NAME = "model_best"

    def __init__(self, checkpointer: NRPNCheckpointer, metric: str):
        self.checkpointer = checkpointer
        self.metric = metric  # such as "bbox/AP50"; larger is better
        self.value = -math.inf
        self._results: dict[str, Any] | None = None

    def before_train(self) -> None:
        path = os.path.join(self.checkpointer.save_dir, f"{self.NAME}.pth")
        if self.trainer.start_iter > 0 and os.path.isfile(path):
            best = load_file(path, mmap=True).get("best", {})
            if best.get("metric") == self.metric:
                self.value = best["value"]
                logger.info("Best %s so far: %.4f", self.metric, self.value)
            else:
                logger.warning("%s was the best by another metric, and is replaced", path)

    def after_train(self) -> None:
        self.after_step()

    def after_step(self) -> None:
        """Save the model if there are new results, and they are the best.

        Raises:
            ValueError: if an evaluation did not give the metric.
        """
        results = getattr(self.trainer, "_last_eval_results", None)
        if results is None or results is self._results:
            return
        self._results = results
        values = flatten_results_dict(results)
        if self.metric not in values:
            raise _no_such_metric(self.metric, values)
        value, iteration = float(values[self.metric]), self.trainer.iter
        if math.isnan(value):
            logger.warning("%s is not defined: %s.pth stays", self.metric, self.NAME)
        elif value > self.value:
            self.value = value
            best = {"metric": self.metric, "value": value, "iteration": iteration}
            self.checkpointer.write(self.NAME, iteration=iteration, best=best)


def finite(evaluate: Callable[[], dict[str, Any] | None]) -> dict[str, float]:
    """Return what ``evaluate`` returns, flat; without NaN, which is no JSON."""
    values = flatten_results_dict(evaluate() or {})
    return {name: value for name, value in values.items() if math.isfinite(value)}


class RepeatablePreciseBN(PreciseBN):
    """Statistics from the same batches each time, those at the beginning of the run's data.

    Detectron2's goes on where its loader stood before the run was killed, and tells the model that
    it is iteration 0: that of the warm-up, in which no statistics of the nRPN are taken.
    """

    @classmethod
    def like(cls, hook: PreciseBN) -> "RepeatablePreciseBN":
        return cls(hook._period, hook._model, hook._data_loader, hook._num_iter)

    def before_train(self) -> None:
        if isinstance(self._data_loader, TrainLoader):
            self._data_loader.start_at(0, self.trainer.seed)

    def update_stats(self) -> None:
        self._logger.info("Running precise-BN for %d iterations", self._num_iter)
        with EventStorage(self.trainer.iter):  # what the model reports is not the training's
            update_bn_stats(self._model, iter(self._data_loader), self._num_iter)


class WarnOfMisfits(HookBase):
    """Warns at the start of what in the config does not fit the data."""

    IMAGES = 2000  # that are looked at

    def __init__(self, cfg: CfgNode):
        self._cfg = cfg

    def before_train(self):
        loader = self.trainer.data_loader
        if not isinstance(loader, TrainLoader):
            return
        records = [r for r in loader.some_records(self.IMAGES) if "width" in r and "height" in r]
        generators = [rpn.anchor_generator for rpn in rpns_of(self.trainer.model)]
        # Of other kinds, such as rotated anchors, the boxes of the objects say too little
        is_upright = generators and isinstance(generators[0], DefaultAnchorGenerator)
        levels = anchor_levels(generators[0]) if is_upright else []
        for hint in data_hints(self._cfg, records, loader.num_records, levels):
            logger.warning("%s", hint)
