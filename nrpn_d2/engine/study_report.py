"""The results of a study as tables and figures.

Intervals are 95 % intervals over seeds, of Student's t. Differences are paired: each run against
the baseline's of the same seed, which saw the same images in the same order.
"""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from ..evaluation import comparison
from ..evaluation.score_evaluator import NUM_BINS
from ..utils.saving import atomic_open
from .study import Study
from .study_results import TIME, Result, write_results

DEFAULT_NMS = 0.7

Row = tuple[str, int]  # variant and iterations
# (row, NMS threshold, metric) -> seed -> value
Values = defaultdict[tuple[Row, str, str], dict[int, float]]


class Interval(NamedTuple):
    """A mean over ``n`` values, half the width of its interval, and p of the paired t-test.

    The latter two are nan for one value, p also for what is no difference.
    """

    mean: float
    half: float
    n: int
    p: float = math.nan


def interval(values: Sequence[float]) -> Interval:
    """Estimate a mean from values of several seeds."""
    return Interval(*comparison.interval(values), len(values))


def paired_difference(values: dict[int, float], baseline: dict[int, float]) -> Interval:
    """Compare two variants by the seeds that both have.

    Args:
        values, baseline: seed -> value.
    """
    seeds = sorted(set(values) & set(baseline))
    differences = [values[s] - baseline[s] for s in seeds]
    difference = interval(differences)
    if difference.half > 0:
        return difference._replace(p=float(stats.ttest_1samp(differences, 0).pvalue))
    return difference


def by_seed(results: Sequence[Result], dataset: str) -> Values:
    """Group the results on a dataset."""
    grouped: Values = defaultdict(dict)
    for r in results:
        if r.dataset == dataset and not math.isnan(r.value):
            key = (r.variant, r.iterations), r.nms, r.metric
            grouped[key][r.seed] = r.value
    return grouped


def rows_of(results: Sequence[Result], variants: Sequence[str]) -> list[Row]:
    """List the rows in the order of the variants, then of the iterations."""
    every = {(r.variant, r.iterations) for r in results if r.variant in variants}
    return sorted(every, key=lambda row: (list(variants).index(row[0]), row[1]))


def read_column(column: str) -> tuple[str, str]:
    """Split "R50@10 | 0.5" into metric and NMS threshold.

    Raises:
        ValueError: if what follows the bar is no number.
    """
    metric, _, nms = (part.strip() for part in column.partition("|"))
    return metric, f"{float(nms) if nms else DEFAULT_NMS:g}"


def _interval(values: Values, row: Row, metric: str, nms: str = f"{DEFAULT_NMS:g}") -> Interval:
    return interval(list(values[row, nms, metric].values()))


def _label(row: Row, rows: Sequence[Row]) -> str:
    return row[0] if len({i for _, i in rows}) == 1 else f"{row[0]}, {row[1]}"


def _markdown(cells: list[list[str]]) -> str:
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def mean_table(values: Values, rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Tabulate the mean and its interval over seeds, in Markdown."""
    cells = [["variant", "seeds", *(c.replace("|", "at NMS") for c in columns)]]
    for row in rows:
        found = [_interval(values, row, *read_column(column)) for column in columns]
        halves = ["" if math.isnan(x.half) else f" ± {x.half:.2g}" for x in found]
        texts = [_number(x.mean) + half for x, half in zip(found, halves)]
        cells.append([_label(row, rows), str(max(x.n for x in found)), *texts])
    return _markdown(cells)


def difference_table(
    values: Values, rows: Sequence[Row], columns: Sequence[str], baseline: str
) -> str:
    """Tabulate the paired differences to the baseline of the same length, in Markdown.

    Cells are "difference [interval], p". The last column is the training time relative to the
    baseline's, the mean over seeds.
    """
    cells = [["variant", "seeds", *(c.replace("|", "at NMS") for c in columns), "time"]]
    for row in rows:
        base = baseline, row[1]
        if row == base:
            continue
        differences = [
            paired_difference(values[row, nms, metric], values[base, nms, metric])
            for metric, nms in map(read_column, columns)
        ]
        own, other = values[row, "", TIME], values[base, "", TIME]
        ratios = [own[seed] / other[seed] for seed in set(own) & set(other)]
        time = f"{mean(ratios):.2f}" if ratios else "-"
        seeds = str(max(d.n for d in differences))
        cells.append([_label(row, rows), seeds, *map(_difference, differences), time])
    return _markdown(cells)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _difference(d: Interval) -> str:
    if math.isnan(d.mean):
        return "-"
    if math.isnan(d.half):
        return f"{d.mean:+.2f}"
    p = "" if math.isnan(d.p) else f", p {d.p:.2g}"
    return f"{d.mean:+.2f} [{d.mean - d.half:+.2f}, {d.mean + d.half:+.2f}]{p}"


def curves(
    metrics: Sequence[str],
    xlabel: str,
    lines: Mapping[str, Sequence[float]],
    point: Callable[[str, str, float], Interval],
) -> Figure:
    """Draw a panel for each metric, with a curve and its intervals for each line.

    Args:
        lines: label -> its xs.
        point: (label, metric, x) -> y.
    """
    figure = Figure(figsize=(4.2 * len(metrics), 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics):
        for label, xs in lines.items():
            ys = [point(label, metric, x) for x in xs]
            means, halves = [y.mean for y in ys], [0 if math.isnan(y.half) else y.half for y in ys]
            axes.errorbar(xs, means, halves, label=label, marker="o", ms=3, capsize=2)
        axes.set(xlabel=xlabel, ylabel=f"{metric} (%)")
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def calibration_figure(values: Values, rows: Sequence[Row], budget: int) -> Figure:
    """Draw the mean IoU against the mean score, in ten bins of the score; the mean over seeds."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1)
    for row in rows:
        scores, ious = (
            np.array([_interval(values, row, f"{kind}:{b}@{budget}").mean for b in range(NUM_BINS)])
            for kind in ("score", "IoU")
        )
        some = ~np.isnan(scores + ious)
        axes.plot(scores[some], ious[some], marker="o", ms=3, label=_label(row, rows))
    axes.set(xlabel="mean score", ylabel="mean IoU", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"the {budget} best proposals of each image")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def figures_of(study: Study, values: Values, rows: Sequence[Row]) -> dict[str, Figure]:
    """Draw everything against numbers of proposals, NMS thresholds and lengths of the training."""
    labels = {_label(row, rows): row for row in rows}
    recalls = [f"R{100 * t:g}" for t in study.iou_thresholds]
    metrics = dict.fromkeys(read_column(column)[0] for column in study.columns)
    metrics = [m for m in metrics if "@" in m]
    figures = {
        "budgets": curves(
            ["AR", *recalls],
            "proposals per image",
            dict.fromkeys(labels, study.budgets),
            lambda label, metric, x: _interval(values, labels[label], f"{metric}@{x}"),
        ),
        "calibration": calibration_figure(values, rows, study.calibration_budget),
    }
    if metrics:
        figures["nms"] = curves(
            metrics,
            "NMS threshold",
            dict.fromkeys(labels, study.nms_thresholds),
            lambda label, metric, x: _interval(values, labels[label], metric, f"{x:g}"),
        )
    if metrics and len(study.iterations) > 1:
        lengths = {v: sorted(i for w, i in rows if w == v) for v, _ in rows}
        figures["schedule"] = curves(
            metrics,
            "iterations",
            lengths,
            lambda variant, metric, x: _interval(values, (variant, x), metric),
        )
    for axes in figures["budgets"].axes:
        axes.set_xscale("log")
        axes.set_xticks(study.budgets, [str(b) for b in study.budgets])
    return figures


def write_report(study: Study, results: Sequence[Result], folder: str) -> str:
    """Write tables.md, figures, and the results.csv of what the tables show, into a folder.

    Returns:
        The tables.
    """
    results = [r for r in results if r.iterations in study.iterations]
    columns = {*map(read_column, study.columns), (TIME, "")}
    shown = [r for r in results if r.dataset == study.dataset and (r.metric, r.nms) in columns]
    write_results(os.path.join(folder, "results.csv"), shown)
    values = by_seed(results, study.dataset)
    rows = rows_of(results, list(study.variants))
    if not rows:
        return "No run has ended yet.\n"
    tables = (
        f"{study.dataset}: mean and 95 % interval over seeds\n\n"
        + mean_table(values, rows, study.columns)
        + f"\nDifference to {study.baseline}, paired by seed, and p of the paired t-test\n\n"
        + difference_table(values, rows, study.columns, study.baseline)
    )
    with atomic_open(os.path.join(folder, "tables.md"), "w") as f:
        f.write(tables)
    for name, figure in figures_of(study, values, rows).items():
        figure.savefig(os.path.join(folder, f"{name}.png"), dpi=110)
    return tables
