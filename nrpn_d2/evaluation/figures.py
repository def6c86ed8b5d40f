"""Pictures: proposals on images, curves of evaluations. Everything takes arrays, gives a Figure."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

PROPOSAL_COLOR = "limegreen"
GROUND_TRUTH_COLOR = "red"
MAX_CLASSES = 100  # that are drawn; each takes a tenth of a second
TICKS = (0, 0.5, 1)


def draw_proposals(
    axes: Axes, image: np.ndarray, boxes: np.ndarray, gt_boxes: np.ndarray, top: int = 10
) -> None:
    """Draw the best proposals in green, objects in red, as Figures 1 and 4 of the paper do.

    Args:
        image: (H, W, 3) uint8, RGB.
        boxes: (K, 4) proposals, best first, x0, y0, x1, y1 in pixels of the image.
        gt_boxes: (G, 4) annotated objects.
        top: how many proposals to draw.
    """
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0))
    for some, color in ((boxes[:top], PROPOSAL_COLOR), (gt_boxes, GROUND_TRUTH_COLOR)):
        for x0, y0, x1, y1 in np.asarray(some).reshape(-1, 4):
            axes.add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=1.5)
            )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def proposal_grid(
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[np.ndarray]],
    gt_boxes: Sequence[np.ndarray],
    top: int = 10,
) -> Figure:
    """Draw one row per image, one column for each kind of boxes, the last for ground truth alone.

    Args:
        images: (H, W, 3) uint8, RGB.
        columns: title ("RPN", "nRPN") -> boxes (K, 4), best first, of each image.
        gt_boxes: (G, 4) of each image.
        top: how many boxes to draw of each kind.

    Raises:
        ValueError: the number of images and that of lists of boxes differ.
    """
    for title, boxes in [*columns.items(), ("ground truth", gt_boxes)]:
        if len(boxes) != len(images):
            raise ValueError(f"{len(images)} images, but boxes of {len(boxes)} images in '{title}'")
    titles = [*columns, "ground truth"]
    figure = Figure(figsize=(3.2 * len(titles), 2.6 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), len(titles), squeeze=False)
    for row, image, objects, *of_image in zip(grid, images, gt_boxes, *columns.values()):
        for axes, boxes in zip(row, [*of_image, np.empty((0, 4))]):
            draw_proposals(axes, image, boxes, objects, top)
    for axes, title in zip(grid[0], titles):
        axes.set_title(title, parse_math=False)
    return figure


def recall_figure(runs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw recall against the number of proposals at each IoU threshold, and against IoU at each
    number of proposals, all runs overlaid, as Figure 3 of the paper does.

    Args:
        runs: name of the run -> ``curves["recall"]`` of :class:`ProposalRecallEvaluator`. Drawn
            are the thresholds and numbers that all runs have.
    """
    thresholds = _common([list(curves["recall_vs_num"]) for curves in runs.values()])
    budgets = _common([list(curves["recall_vs_iou"]) for curves in runs.values()])
    num_columns = max(len(thresholds), len(budgets), 1)
    figure = Figure(figsize=(4 * num_columns, 7), layout="constrained")
    grid = figure.subplots(2, num_columns, squeeze=False)
    for axes, threshold in zip(grid[0], thresholds):
        for curves in runs.values():
            axes.plot(curves["num_proposals"], curves["recall_vs_num"][threshold])
        is_ar = threshold == "AR"
        axes.set(
            xscale="log",
            xlabel="number of proposals",
            ylabel="average recall" if is_ar else "recall",
            title="AR, IoU 0.5:0.95" if is_ar else f"IoU {threshold}",
        )
    for axes, budget in zip(grid[1], budgets):
        for curves in runs.values():
            axes.plot(curves["iou"], curves["recall_vs_iou"][budget])
        axes.set(xlabel="IoU", ylabel="recall", title=f"{budget} proposals per image")
    for axes in grid.flat:
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        axes.set_visible(axes.has_data())
    _legend(grid[0, 0], grid[0, 0].lines, runs, "IoU threshold")
    if not budgets:
        _legend(grid[1, 0], [], runs, "number of proposals")
    return figure


def error_figure(runs: Mapping[str, Mapping[Any, Mapping[str, float]]]) -> Figure:
    """Draw what the proposals of each run are: stacked bars, a panel per number of proposals.

    Args:
        runs: name -> {number of proposals: {kind: percent}}, ``curves["errors"]`` of
            :class:`ProposalErrorEvaluator`. Drawn are the numbers that all runs have.
    """
    budgets = _common([list(by_budget) for by_budget in runs.values()])
    kinds = next(iter(next(iter(runs.values())).values()))
    figure = Figure(figsize=(max(3 * len(budgets), 4), 4), layout="constrained")
    grid = figure.subplots(1, max(len(budgets), 1), squeeze=False, sharey=True)
    for axes, budget in zip(grid[0], budgets):
        bottom = np.zeros(len(runs))
        for kind in kinds:
            shares = np.array([by_budget[budget][kind] for by_budget in runs.values()], float)
            axes.bar(range(len(runs)), shares, bottom=bottom)
            bottom += shares
        axes.set(title=f"{budget} proposals per image", ylim=(0, 100))
        axes.set_xticks(range(len(runs)), list(runs), rotation=30, parse_math=False)
    grid[0, 0].set_ylabel("proposals (%)")
    _legend(grid[0, -1], grid[0, -1].containers, kinds, "number of proposals")
    return figure


def false_positive_figure(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw recall against background proposals per image, over all score thresholds.

    Args:
        runs: name -> ``curves["false_positives"]`` of :class:`ProposalErrorEvaluator`.
    """
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for curve in runs.values():
        axes.plot(curve["per_image"], np.asarray(curve["recall"], float))
    axes.set(xscale="log", xlabel="background proposals per image", ylabel="recall, IoU 0.5")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    _legend(axes, axes.lines, runs, "run")
    return figure


def precision_recall_figure(
    runs: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], task: str = "bbox"
) -> Figure:
    """Draw the precision-recall curves of all runs, one panel per class.

    Args:
        runs: name -> {task: {class name: precisions (P,) at P recalls evenly in [0, 1]}}. Drawn
            are the classes that all runs have, up to MAX_CLASSES.
        task: whose curves to draw.
    """
    names = _common([list(by_task.get(task, {})) for by_task in runs.values()])
    shown = names[:MAX_CLASSES]
    figure, grid = _panels(len(shown))
    for axes, name in zip(grid.flat, shown):
        for by_task in runs.values():
            precisions = by_task[task][name]
            axes.plot(np.linspace(0, 1, len(precisions)), precisions)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=TICKS, yticks=TICKS)
        axes.set(xlabel="recall", ylabel="precision")
        axes.set_title(name, fontsize="medium", parse_math=False)
        axes.grid(alpha=0.3)
    for axes in grid.flat[max(len(shown), 1) :]:
        axes.set_visible(False)
    if len(shown) < len(names):
        figure.suptitle(
            f"{len(shown)} of {len(names)} classes; all are in results.json",
            y=1 - 0.1 / figure.get_figheight(),
        )
    _legend(grid[0, 0], grid[0, 0].lines, runs, "class")
    return figure


def _panels(count: int) -> tuple[Figure, np.ndarray]:
    """Make a figure and its axes, ``count`` or a few more, in rows of 5.

    The margins are fixed: a constrained layout of 80 panels takes longer than all the rest.
    """
    columns = min(max(count, 1), 5)
    rows = max(-(-count // columns), 1)
    width, height = 3 * columns, 2.8 * rows + 0.3  # inches
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.6 / width,
        right=1 - 0.15 / width,
        bottom=0.5 / height,
        top=1 - 0.65 / height,
        wspace=0.75 / (3 - 0.75),
        hspace=0.85 / (2.8 - 0.85),
    )
    return figure, grid


def _legend(axes: Axes, handles: Sequence[Any], names: Iterable[str], what: str) -> None:
    """Write names as they are: matplotlib reads $ as a formula and leaves out a leading _.

    Where there is nothing to name, for want of ``what`` in common, the panel says so.
    """
    if not handles:
        axes.text(0.5, 0.5, f"no {what} that all runs have", ha="center", va="center")
        axes.set(visible=True, xscale="linear", xlim=(0, 1), ylim=(0, 1))
        axes.set_axis_off()
        return
    legend = axes.legend(handles, [""] * len(handles), fontsize="small")
    for text, name in zip(legend.get_texts(), names):
        text.set(text=name, parse_math=False)


def _common(lists: Sequence[list]) -> list:
    """Return what is in all of the lists, in the order of the first."""
    return [item for item in lists[0] if all(item in other for other in lists[1:])]


def save_figure(figure: Figure, path: str) -> list[str]:
    """Write ``path``.png and ``path``.pdf, making their folder; return the two paths."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    written = [f"{path}.{suffix}" for suffix in ("png", "pdf")]
    for name in written:
        figure.savefig(name, dpi=120)
    return written
