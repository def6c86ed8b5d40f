"""The curves of runs as charts: of one run, or of groups of seeds, overlaid.

One run: a chart has all curves of a kind. Several: a chart for each curve, with a line per group,
the mean of its runs, and the 95 % interval of the mean as a band.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...utils.charts import Line, Mark, line_chart
from ...utils.page import Html
from ..comparison import interval
from .folder import Evaluation, RunFolder

Groups = Mapping[str, Sequence[RunFolder]]
Curves = dict[str, tuple[Sequence[float], Sequence[float]]]  # name -> x and y
TEST = " (test images)"

MAX_CLASSES = 6  # whose precision is drawn, the worst


def evaluations_of(dataset: str, groups: Groups) -> dict[str, list[Evaluation]]:
    """Return the evaluations of each group's runs, of those that have one of the dataset."""
    return {
        name: [run.evaluations[dataset] for run in runs if dataset in run.evaluations]
        for name, runs in groups.items()
    }


def charts(
    title: str, groups: Groups, curves_of: Callable[[RunFolder], Curves], *labels: str, **options
) -> list[Html]:
    """Return the charts of ``curves_of`` each run; options are those of ``line_chart``.

    A group is left out of a chart unless all its runs have the curve.
    """
    curves = {name: [curves_of(run) for run in runs] for name, runs in groups.items()}
    if sum(map(len, curves.values())) == 1:
        ((only,),) = curves.values()
        lines = []
        for name, (x, y) in only.items():
            partner = [*only].index(name[: -len(TEST)]) if name.endswith(TEST) else None
            lines.append(Line(name, x, y, color=partner, dashed=partner is not None))
        return [line_chart(title, lines, *labels, **options)]
    names = dict.fromkeys(name for runs in curves.values() for run in runs for name in run)
    return [
        line_chart(
            f"{title}: {name}",
            [
                _mean_line(group, [run[name] for run in runs])._replace(color=color)
                for color, (group, runs) in enumerate(curves.items())
                if all(name in run for run in runs)
            ],
            *labels,
            **options,
        )
        for name in names
    ]


def _mean_line(name: str, curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Line:
    x = np.asarray(curves[0][0], float)
    ys = np.array([np.interp(x, *_finite(*curve), np.nan, np.nan) for curve in curves])
    if len(ys) == 1:
        return Line(name, x, ys[0])
    mean, half = np.transpose([interval(values) for values in ys.T.tolist()])
    return Line(f"{name} ({len(ys)})", x, mean, mean - half, mean + half)


def _finite(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, float), np.asarray(y, float)
    kept = np.isfinite(y)
    return (x[kept], y[kept]) if kept.any() else (np.zeros(1), np.full(1, np.nan))


def losses(run: RunFolder) -> Curves:
    """Return each loss of the training and, where it was measured, of the test set."""
    curves = {}
    for key, curve in run.history.items():
        if key == "total_loss" or key.startswith("loss_"):
            name = key.removeprefix("loss_").removesuffix("_loss")
            curves[name] = curve
    curves = {name: curves[name] for name in sorted(curves, key=lambda x: (x != "total", x))}
    for key, curve in run.history.items():
        measured, _, name = key.rpartition("/")
        if measured == "validation" and name in curves:
            curves[name + TEST] = curve
        elif measured.startswith("validation/") and name in curves:  # of one of several test sets
            curves[f"{name} on {measured.removeprefix('validation/')}"] = curve
    return curves


def exchange_counts(run: RunFolder) -> Curves:
    """Return how many anchors per image the networks give each other."""
    names = {
        "nrpn/false_positives": "mined false positives",
        "nrpn/hard_negatives": "hard negatives from the nRPN",
    }
    return _of_history(run, names)


def exchange_scores(run: RunFolder) -> Curves:
    """Return how sure the networks are of what they give each other."""
    names = {
        "nrpn/rpn_score_on_fp": "RPN's score of false positives",
        "nrpn/score_on_fp": "nRPN's score of them",
        "nrpn/rpn_score_on_hard": "RPN's score of hard negatives",
        "nrpn/believed": "share that the RPN believes",
        "nrpn/ap": "AP of the nRPN's ranking",
    }
    return _of_history(run, names)


def _of_history(run: RunFolder, names: Mapping[str, str]) -> Curves:
    return {name: run.history[key] for key, name in names.items() if key in run.history}


def progress(run: RunFolder) -> Curves:
    """Return the evaluations of a training, if there were several."""
    named = {key: key.replace("box_proposals/", "proposals, ") for key in run.history}
    named = {key: name.replace("bbox/AP50", "mAP, IoU 0.5") for key, name in named.items()}
    several = {key for key, (x, _) in run.history.items() if len(x) > 1}
    ends = ("bbox/AP50", "box_proposals/AR")
    return _of_history(run, {k: n for k, n in named.items() if k.endswith(ends) and k in several})


def warm_up(groups: Groups) -> list[Mark]:
    """Return the iterations in which the RPN of the first run with an nRPN trained alone."""
    for run in (run for runs in groups.values() for run in runs):
        x, joint = run.history.get("nrpn/joint", ((), ()))
        alone = np.asarray(x)[np.asarray(joint) == 0]
        if len(alone):
            end = run.config.get("MODEL.NRPN.WARMUP_ITERS", alone[-1])
            return [Mark("warm-up: RPN alone", 0, min(end, run.last))]
    return []


def of_evaluation(dataset: str, kind: str, read: Callable[[Any], Curves]) -> Callable:
    """Return a function for :func:`charts` that reads a kind of curve of a dataset."""

    def curves_of(run: RunFolder) -> Curves:
        evaluation = run.evaluations.get(dataset)
        curve = evaluation.curves.get(kind) if evaluation else None
        return read(curve) if curve else {}

    return curves_of


def recall_by_number(curve: Mapping[str, Any]) -> Curves:
    return {
        f"IoU {key}" if key != "AR" else "AR": (curve["num_proposals"], _numbers(values))
        for key, values in curve["recall_vs_num"].items()
    }


def recall_by_iou(curve: Mapping[str, Any]) -> Curves:
    return {
        f"{key} proposals": (curve["iou"], _numbers(values))
        for key, values in curve["recall_vs_iou"].items()
    }


def recall_by_false_positives(curve: Mapping[str, Any]) -> Curves:
    return {"IoU 0.5": (curve["per_image"], _numbers(curve["recall"]))}


def score_rates(curve: Mapping[str, Any]) -> Curves:
    return {key: (curve["score"], _numbers(curve[key])) for key in ("precision", "recall", "F1")}


def precision_by_recall(dataset: str, groups: Groups) -> Callable[[Any], Curves]:
    """Return what reads the curves of the classes; of many, of those worst in all runs together."""
    means: dict[str, list[float]] = {}
    for e in itertools.chain(*evaluations_of(dataset, groups).values()):
        for name, values in e.curves.get("precision_recall", {}).get("bbox", {}).items():
            means.setdefault(name, []).append(np.mean(_numbers(values)))
    worst = sorted(means, key=lambda name: np.mean(means[name]))[:MAX_CLASSES]

    def read(curve: Mapping[str, Any]) -> Curves:
        by_class = {name: _numbers(x) for name, x in curve["bbox"].items() if name in worst}
        return {name: (np.linspace(0, 1, len(x)), x) for name, x in by_class.items()}

    return read


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
