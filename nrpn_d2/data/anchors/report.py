"""What was fitted, as text, as YAML to paste, and as a plot."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from .fitting import FittedAnchors, Quality
from .reach import REACHED, AnchorLevel, best_ious, reached
from .seen import SeenObjects


def table(present: Quality, count: int, fits: Sequence[FittedAnchors]) -> str:
    """Return the table of all k, below the ``count`` present anchors."""
    headers = ["anchors", "mean IoU", *(f"reached {iou:g}" for iou in REACHED), "grid"]
    headers += ["mean IoU", *(f"reached {iou:g}" for iou in REACHED), "loss"]
    rows = [[f"present {count}", *["" for _ in (0, *REACHED)], "", *_cells(present), ""]]
    for fit in fits:
        form = f"{sum(map(len, fit.sizes))} sizes x {len(fit.ratios)} ratios"
        loss = f"{fit.free.mean_iou - fit.grid.mean_iou:.3f}"
        rows.append([f"{fit.k} fitted", *_cells(fit.free), form, *_cells(fit.grid), loss])
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, stralign="right")


def level_table(objects: SeenObjects, levels: Sequence[AnchorLevel]) -> str:
    """Return a table of the objects whose best anchor is on each level."""
    best = best_ious(objects, levels)
    level_of = best.argmax(axis=1)
    rows = []
    for number, level in enumerate(levels):
        own = best[level_of == number, number]
        mean = own.mean() if len(own) else float("nan")
        rows.append([f"stride {level.stride}", len(own), f"{mean:.3f}", *_percent(reached(own))])
    headers = ["feature map", "objects", "IoU on grid", *(f"reached {iou:g}" for iou in REACHED)]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, stralign="right")


def to_yaml(fit: FittedAnchors) -> str:
    """Return the config keys of the fitted anchors."""
    return (
        "MODEL:\n  ANCHOR_GENERATOR:\n"
        f"    SIZES: {fit.sizes}\n"
        f"    ASPECT_RATIOS: [{fit.ratios}]  # height / width\n"
    )


def plot(present: Quality, count: int, fits: Sequence[FittedAnchors], suggested: int) -> Figure:
    """Draw the mean IoU against k."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    ks = [fit.k for fit in fits]
    axes.plot(ks, [fit.free.mean_iou for fit in fits], "o-", color="#0072B2", label="clusters")
    grid = [fit.grid.mean_iou for fit in fits]
    axes.plot(ks, grid, "s--", color="#D55E00", label="as sizes x ratios")
    axes.plot(count, present.mean_iou, "k*", markersize=12, label="present anchors")
    axes.axvline(suggested, color="0.6", linestyle=":", label=f"suggested: {suggested}")
    axes.set(xlabel="number of anchors k", ylabel="mean IoU with the best anchor (shape)")
    axes.set_xticks(np.unique([*ks, count]))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def _cells(quality: Quality) -> list[str]:
    return [f"{quality.mean_iou:.3f}", *_percent(quality.reached)]


def _percent(fractions: Sequence[float]) -> list[str]:
    return [f"{100 * fraction:.1f} %" for fraction in fractions]
