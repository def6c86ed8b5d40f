"""What an evaluation leaves on disk: results.json, results.csv and figures."""

import csv
import functools
import json
import logging
import math
import os

import numpy as np
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm

from ..utils.saving import atomic_open
from .evaluator import together
from .figures import error_figure, precision_recall_figure, recall_figure, save_figure

logger = logging.getLogger(__name__)

RECALL_LEVELS = np.arange(101) / 100  # rounded as a recall of 35 / 100 is; np.linspace differs


class WritingEvaluators(DatasetEvaluators):
    """Evaluators of this package, whose results are also written into a folder."""

    def __init__(self, evaluators, dataset_name, output_dir):
        """
        Args:
            evaluators (list[PerImageEvaluator]): of one dataset.
            dataset_name (str): of that dataset.
            output_dir (str): folder, made if it is not there.
        """
        super().__init__(evaluators)
        self._dataset_name = dataset_name
        self._output_dir = output_dir

    def evaluate(self):
        results = super().evaluate()
        together(functools.partial(self._write, results))
        return results

    def _write(self, results):
        if comm.is_main_process():
            curves = {}
            for evaluator in self._evaluators:
                curves.update(evaluator.curves)
            write_run(self._output_dir, self._dataset_name, results, curves)


def write_run(output_dir, dataset_name, results, curves):
    """
    Write results.json (metrics and curves; nan is null), results.csv (task, metric, value) and, as
    PNG and PDF, the figures of whatever curves there are. Where these fail, the error is logged.

    Args:
        output_dir (str): folder, made if it is not there.
        dataset_name (str): goes into results.json.
        results (dict): task -> {metric: value}.
        curves (dict): of the evaluators, together.
    """
    os.makedirs(output_dir, exist_ok=True)
    curves = {**curves, "precision_recall": _sampled(curves.get("precision_recall", {}))}
    run = {"dataset": dataset_name, "metrics": results, "curves": curves}
    with atomic_open(os.path.join(output_dir, "results.json"), "w") as f:
        json.dump(_plain(run), f, indent=1, allow_nan=False)
    with atomic_open(os.path.join(output_dir, "results.csv"), "w") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["task", "metric", "value"])
        for task, metrics in results.items():
            writer.writerows(
                [task, metric, "n/a" if math.isnan(value) else value]
                for metric, value in metrics.items()
            )
    try:
        draw_runs(output_dir, {dataset_name: curves})
    except Exception:  # a training is worth more than its pictures
        logger.exception(f"Not all figures are in {output_dir}; results.json and results.csv are")
    else:
        logger.info(f"Wrote results.json, results.csv and figures to {output_dir}")


def read_run(path):
    """
    Args:
        path (str): a results.json, its folder, or the OUTPUT_DIR of a training.

    Returns:
        dict: as written by :func:`write_run`: "dataset", "metrics" (with nan), "curves".

    Raises:
        FileNotFoundError: names the places looked at.
        ValueError: for a file that is not such a results.json; names file and key.
    """
    places = (
        [path]
        if os.path.isfile(path)
        else [os.path.join(path, *folder, "results.json") for folder in ((), ("inference",))]
    )
    found = [place for place in places if os.path.isfile(place)]
    if not found:
        raise FileNotFoundError(f"no results.json of an evaluation at {' or '.join(places)}")
    with open(found[0]) as f:
        try:
            run = json.load(f)
        except ValueError as e:  # neither JSON nor text
            raise ValueError(f"{found[0]} is not a results.json of an evaluation: {e!r}") from e
    _check_run(run, found[0])
    curves = run["curves"]
    for values in run["metrics"].values():
        values.update({key: math.nan for key, value in values.items() if value is None})
    # Budgets and IoU thresholds are numbers again; the names of tasks and classes stay text.
    for kind in ("recall", "errors"):
        curves[kind] = _with_number_keys(curves.get(kind, {}))
    for by_class in curves.get("precision_recall", {}).values():
        by_class.update({name: np.array(curve) for name, curve in by_class.items()})
    return run


def _check_run(run, path):
    """ValueError unless ``run`` has the parts, and these the types, of what write_run writes."""

    def check(parent, key, types, expected):
        if not isinstance(parent, dict) or not isinstance(parent.get(key), types):
            raise ValueError(
                f"{path} is not a results.json of an evaluation: '{key}' is missing or not "
                f"{expected}"
            )

    check(run, "dataset", str, "text")
    for part in ("metrics", "curves"):
        check(run, part, dict, "an object")
        for key in run[part]:
            check(run[part], key, dict, "an object")
    for values in run["metrics"].values():
        for key in values:
            check(values, key, (float, int, type(None)), "a number")


def draw_runs(output_dir, runs):
    """
    Draw the figures, all runs overlaid: recall, errors, and precision-recall per class.

    Args:
        output_dir (str): folder, made if it is not there.
        runs (dict): name -> curves, precision at the recalls RECALL_LEVELS.
    """
    for kind, draw in (
        ("recall", recall_figure),
        ("errors", error_figure),
        ("precision_recall", precision_recall_figure),
    ):
        having = {name: curves[kind] for name, curves in runs.items() if curves.get(kind)}
        if having:
            save_figure(draw(having), os.path.join(output_dir, kind))


def _sampled(by_task):
    """PrecisionRecall -> best precision at recall >= each of RECALL_LEVELS; 0 beyond the last."""

    def sample(curve):
        envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
        at = np.searchsorted(curve.recall, RECALL_LEVELS)
        return np.append(envelope, 0.0)[np.minimum(at, len(envelope))]

    return {
        task: {name: sample(curve) for name, curve in by_class.items()}
        for task, by_class in by_task.items()
    }


def _plain(value):
    """What json can write: lists for arrays, None for nan."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, np.ndarray)):
        return [_plain(item) for item in np.asarray(value).tolist()]
    return None if isinstance(value, float) and math.isnan(value) else value


def _with_number_keys(value):
    """The inverse of :func:`_plain`: "50" -> 50, "0.5" -> 0.5, lists -> arrays."""
    if isinstance(value, dict):
        return {_number(key): _with_number_keys(item) for key, item in value.items()}
    return np.array(value, float) if isinstance(value, list) else value


def _number(key):
    for kind in (int, float):
        try:
            return kind(key)
        except ValueError:
            pass
    return key
