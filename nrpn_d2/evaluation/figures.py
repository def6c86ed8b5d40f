"""Curves of evaluations: everything takes arrays, gives a Figure.

The curves' functions take {name of a run: what an evaluator's ``curves`` has of that kind}, and
draw the budgets, IoU thresholds and classes that all runs have.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any colour vision; then the same again, dashed
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = cycler(linestyle=("-", "--", ":")) * cycler(color=COLORS)
MAX_CLASSES = 100  # that are drawn; each takes a tenth of a second


def recall_figure(runs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw recall against the number of proposals at each IoU threshold, and against IoU at each
    number of proposals, all runs overlaid, as Figure 3 of the paper does.
    """
    thresholds = _common([list(curves["recall_vs_num"]) for curves in runs.values()])
    budgets = _common([list(curves["recall_vs_iou"]) for curves in runs.values()])
    titles = {t: f"IoU {t}" for t in thresholds}, {k: f"{k} proposals per image" for k in budgets}
    if "AR" in thresholds:
        titles[0]["AR"] = "AR, IoU 0.5:0.95"
    widths = [max(len(row), 1) for row in titles]
    figure = Figure(figsize=(3.6 * max(widths), 6.4), layout="constrained")
    # Rows of different numbers of panels have the same width
    grid = figure.add_gridspec(2, math.lcm(*widths))
    keys = ("num_proposals", "recall_vs_num"), ("iou", "recall_vs_iou")
    labels = "number of proposals", "IoU"
    for row, (x, y) in enumerate(keys):
        step = math.lcm(*widths) // widths[row]
        for n, (key, title) in enumerate(titles[row].items()):
            axes = figure.add_subplot(grid[row, n * step : (n + 1) * step])
            for style, curves in zip(STYLES(), runs.values()):
                axes.plot(curves[x], np.asarray(curves[y][key], float), **style)
            ylabel = "average recall" if key == "AR" else "recall"
            axes.set(xlabel=labels[row], ylabel=ylabel, title=title, ylim=(0, 1.02))
            axes.grid(alpha=0.3)
            if row == 0:
                _count_axis(axes)
        if not titles[row]:
            _note(figure.add_subplot(grid[row, :]), ("IoU threshold", labels[0])[row])
    draw_legend(figure, next((axes.lines for axes in figure.axes if axes.lines), []), runs)
    return figure


def error_figure(runs: Mapping[str, Mapping[Any, Mapping[str, float]]]) -> Figure:
    """Draw what the proposals of each run are: stacked bars, a panel per number of proposals."""
    budgets = _common([list(by_budget) for by_budget in runs.values()])
    kinds = next(iter(next(iter(runs.values())).values()))
    figure = Figure(figsize=(max(3 * len(budgets), 4), 4.2), layout="constrained")
    grid = figure.subplots(1, max(len(budgets), 1), squeeze=False, sharey=True)
    for axes, budget in zip(grid[0], budgets):
        bottom = np.zeros(len(runs))
        for kind, color in zip(kinds, COLORS):
            shares = np.array([by_budget[budget][kind] for by_budget in runs.values()], float)
            axes.bar(range(len(runs)), shares, bottom=bottom, color=color)
            bottom += shares
        axes.set(title=f"{budget} proposals per image", ylim=(0, 100))
        axes.set_xticks(range(len(runs)), list(runs), rotation=30, parse_math=False)
    grid[0, 0].set_ylabel("proposals (%)")
    if not budgets:
        _note(grid[0, 0], "number of proposals")
    draw_legend(figure, grid[0, 0].containers, kinds)
    return figure


def false_positive_figure(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw recall against background proposals per image, over all score thresholds."""
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    for style, curve in zip(STYLES(), runs.values()):
        axes.plot(curve["per_image"], np.asarray(curve["recall"], float), **style)
    axes.set(xlabel="background proposals per image", ylabel="recall, IoU 0.5", ylim=(0, 1.02))
    _count_axis(axes)
    axes.grid(alpha=0.3)
    draw_legend(figure, axes.lines, runs)
    return figure


def precision_recall_figure(runs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the precision-recall curves of the task "bbox", one panel for each of up to MAX_CLASSES,
    titled with the area below the curve, which is AP up to a point of rounding.
    """
    names = _common([list(by_task.get("bbox", {})) for by_task in runs.values()])
    shown = names[:MAX_CLASSES]
    figure, grid = _panels(len(shown), len(runs))
    for axes, name in zip(grid.flat, shown):
        aps = []
        for style, by_task in zip(STYLES(), runs.values()):
            precisions = by_task["bbox"][name]
            aps.append(100 * float(np.mean(precisions)))
            axes.plot(np.linspace(0, 1, len(precisions)), precisions, **style)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        # In the order of the legend; of many runs the range
        many = len(aps) > 3
        ap = f"{min(aps):.0f} to {max(aps):.0f}" if many else ", ".join(f"{x:.0f}" for x in aps)
        axes.set_title(f"{name}: AP ≈ {ap}", fontsize="medium", parse_math=False)
        axes.grid(alpha=0.3)
    for axes in grid.flat[max(len(shown), 1) :]:
        axes.remove()
    if len(shown) < len(names):
        title = f"{len(shown)} of {len(names)} classes; all are in results.json"
        figure.suptitle(title, y=1 - 0.1 / figure.get_figheight())
    if not shown:
        _note(grid[0, 0], "class")
    draw_legend(figure, grid[0, 0].lines, runs)
    return figure


def _count_axis(axes: Axes) -> None:
    """Make the x axis logarithmic, with 1, 10, 100 written as such, if there is anything to see."""
    if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
        return  # matplotlib cannot scale it
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def _panels(count: int, num_runs: int) -> tuple[Figure, np.ndarray]:
    """Make a figure and its axes, ``count`` or a few more, in rows of 5, over a legend.

    The margins are fixed: a constrained layout of 80 panels takes longer than all the rest.
    """
    columns = min(max(count, 1), 5)
    rows = max(-(-count // columns), 1)
    below = 0.75 + 0.25 * math.ceil(num_runs / _legend_columns(3 * columns))
    width, height = 3 * columns, 2.8 * rows + below - 0.2  # inches
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, squeeze=False)
    sides = {"left": 0.6 / width, "right": 1 - 0.15 / width}
    sides |= {"bottom": below / height, "top": 1 - 0.65 / height}
    figure.subplots_adjust(**sides, wspace=0.75 / (3 - 0.75), hspace=0.85 / (2.8 - 0.85))
    return figure, grid


def _note(axes: Axes, what: str) -> None:
    """Say in a panel that there is nothing to draw, for want of ``what`` in common."""
    axes.text(0.5, 0.5, f"no {what} that all runs have", ha="center", va="center")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()


def _legend_columns(width: float) -> int:
    """Return how many names of usual length fit side by side on ``width`` inches."""
    return max(int(width / 1.8), 1)


def draw_legend(
    figure: Figure, handles: Sequence[Any], names: Iterable[str], columns: int | None = None
) -> None:
    """Write the names below the panels, where they cover no curve, and as they are: matplotlib
    reads $ as a formula and leaves out a leading _.
    """
    if not handles:
        return
    columns = columns or _legend_columns(figure.get_figwidth())
    constrained = figure.get_layout_engine() is not None
    place = "outside lower center" if constrained else "lower center"
    legend = figure.legend(handles, [""] * len(handles), loc=place, ncols=columns)
    for text, name in zip(legend.get_texts(), names):
        text.set(text=name, parse_math=False)


def _common(lists: Sequence[list]) -> list:
    """Return what is in all of the lists, in the order of the first."""
    return [item for item in lists[0] if all(item in other for other in lists[1:])]


def save_figure(figure: Figure, path: str) -> None:
    """Write ``path``.png and ``path``.pdf, making their folder."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    for suffix in ("png", "pdf"):
        figure.savefig(f"{path}.{suffix}", dpi=150)
