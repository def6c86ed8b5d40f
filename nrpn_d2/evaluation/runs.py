"""Evaluations as files: results.json, results.csv and figures; written, read and compared."""

import csv
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm

from ..utils.saving import atomic_open
from ..utils.text_files import load_json
from .evaluator import PerImageEvaluator, together
from .figures import save_figure
from .mistakes import MistakeEvaluator
from .proposal_errors import ProposalErrorEvaluator
from .recall_evaluator import ProposalRecallEvaluator
from .voc_evaluator import VOCDetectionEvaluator

logger = logging.getLogger(__name__)

# All that a run is evaluated by: a new evaluator is a class in a file of its own, and a name here
# (or, outside of this package, EVALUATORS.append)
EVALUATORS: list[type[PerImageEvaluator]] = [
    ProposalRecallEvaluator,
    ProposalErrorEvaluator,
    VOCDetectionEvaluator,
    MistakeEvaluator,
]


class WritingEvaluators(DatasetEvaluators):
    """Evaluators of this package, whose results are also written into a folder."""

    def __init__(self, evaluators: Sequence[PerImageEvaluator], dataset_name: str, output_dir: str):
        super().__init__(evaluators)
        self._dataset_name = dataset_name
        self._output_dir = output_dir

    def evaluate(self) -> dict[str, dict[str, float]]:
        results = super().evaluate()
        curves = {kind: c for e in self._evaluators for kind, c in e.curves.items()}
        files = {name: content for e in self._evaluators for name, content in e.files.items()}
        run = self._output_dir, self._dataset_name, results, curves, files
        together(lambda: write_run(*run) if comm.is_main_process() else None)
        return results


def write_run(
    output_dir: str,
    dataset_name: str,
    results: Mapping[str, Mapping[str, float]],
    curves: Mapping[str, Any],
    files: Mapping[str, Any] | None = None,
) -> None:
    """Write results.json (metrics and curves; nan is null), results.csv (four digits) and, as PNG
    and PDF, the figures of the curves. Where figures fail, the error is logged.

    Args:
        results: task -> {metric: value}; the metric of one class is "metric-class".
        curves: of the evaluators, together.
        files: likewise; more JSON files by name.
    """
    for name, content in (files or {}).items():
        with atomic_open(os.path.join(output_dir, name), "w") as f:
            f.write(json.dumps(content, allow_nan=False, separators=(",", ":")))
    run = {"dataset": dataset_name, "metrics": results, "curves": curves}
    with atomic_open(os.path.join(output_dir, "results.json"), "w") as f:
        json.dump(_plain(run), f, indent=1, allow_nan=False)
    with atomic_open(os.path.join(output_dir, "results.csv"), "w") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["task", "metric", "class", "value"])
        for task, metrics in results.items():
            for key, value in metrics.items():
                metric, _, class_name = key.partition("-")
                text = "n/a" if math.isnan(value) else f"{value:.4g}"
                writer.writerow([task, metric, class_name, text])
    try:
        draw_runs(output_dir, {dataset_name: curves})
    except Exception:  # a training is worth more than its pictures
        logger.exception("Not all figures are in %s; results.json and results.csv are", output_dir)
    else:
        logger.info("Wrote results.json, results.csv and figures to %s", output_dir)


def _plain(value: Any) -> Any:
    """Return what JSON knows: lists for arrays, None for nan."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, np.ndarray)):
        return [_plain(item) for item in np.asarray(value).tolist()]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_run(path: str) -> dict[str, Any]:
    """Read what :func:`write_run` wrote.

    Args:
        path: a results.json, its folder, or the OUTPUT_DIR of a training.

    Returns:
        "dataset", "metrics" (with nan) and "curves" (with None for nan; {} if the file has none).

    Raises:
        FileNotFoundError: names the places looked at.
        ValueError: for a file that is not such a results.json; names file and key.
    """
    places = [path]
    if not os.path.isfile(path):
        places = [os.path.join(path, *inner, "results.json") for inner in ((), ("inference",))]
    existing = [place for place in places if os.path.isfile(place)]
    if not existing:
        raise FileNotFoundError(f"no results.json of an evaluation at {' or '.join(places)}")
    run = load_json(existing[0])
    if isinstance(run, dict):
        run.setdefault("curves", {})
    _check_run(run, existing[0])
    for values in run["metrics"].values():
        values.update({key: math.nan for key, value in values.items() if value is None})
    return run


def _check_run(run: Any, path: str) -> None:
    """Raise a ValueError unless ``run`` has the parts, and these the types, of write_run's."""

    def check(parent: Any, key: str, types: type | tuple[type, ...], expected: str) -> None:
        if not isinstance(parent, dict) or not isinstance(parent.get(key), types):
            message = f"{path} is not a results.json of an evaluation"
            raise ValueError(f"{message}: '{key}' is missing or not {expected}")

    check(run, "dataset", str, "text")
    for part in ("metrics", "curves"):
        check(run, part, dict, "an object")
        for key in run[part]:
            check(run[part], key, dict, "an object")
    for values in run["metrics"].values():
        for key in values:
            check(values, key, (float, int, type(None)), "a number")


def draw_runs(output_dir: str, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the figures of all evaluators, all runs overlaid.

    Args:
        runs: name -> curves.

    Raises:
        ValueError: a curve is not as the evaluators make it; the other figures are drawn.
    """
    broken = []
    for kind, draw in [item for evaluator in EVALUATORS for item in evaluator.figures.items()]:
        having = {name: curves[kind] for name, curves in runs.items() if curves.get(kind)}
        try:
            if having:
                save_figure(draw(having), os.path.join(output_dir, kind))
        except (AttributeError, LookupError, TypeError, ValueError) as e:
            broken.append(f"'{kind}' of {', '.join(having)} ({e!r})")
    if broken:
        raise ValueError(f"not the curves of an evaluation: {'; '.join(broken)}")
