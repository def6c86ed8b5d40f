"""Several evaluated runs side by side: one table, and their figures overlaid."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from ..utils.saving import atomic_open
from .evaluator import format_table
from .runs import EVALUATORS, draw_runs, read_run


def compare_runs(arguments: Sequence[str], output_dir: str) -> str:
    """Write comparison.txt and the figures of several runs; return the table.

    Args:
        arguments: a path for :func:`read_run`, whose run is named after its folder; or
            "name=path,path,...", one method trained with several seeds: a column of the table has
            the mean and its 95 % interval, and the figures have a curve for each.
        output_dir: made if it does not exist.

    Raises:
        ValueError: the same run twice, runs of different datasets, or a broken results.json.
    """
    groups = group_runs(arguments)
    runs = {path: read_run(path) for members in groups.values() for path in members}
    if len({run["dataset"] for run in runs.values()}) > 1:
        listed = ", ".join(f"{path} of '{run['dataset']}'" for path, run in runs.items())
        raise ValueError(f"runs of different datasets cannot be compared: {listed}")
    columns, curves = {}, {}
    names = dict(zip(runs, run_names([*runs])))
    for group, members in groups.items():
        several = len(members) > 1
        column = f"{group} ({len(members)})" if several else group
        columns[column] = [runs[path]["metrics"] for path in members]
        for path in members:
            curves[f"{group}, {names[path]}" if several else group] = runs[path]["curves"]
    table = comparison_table(columns)
    with atomic_open(os.path.join(output_dir, "comparison.txt"), "w") as f:
        f.write(f"{table}\n")
    draw_runs(output_dir, curves)
    return table


def group_runs(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return name -> paths, of one run or of several seeds; see :func:`compare_runs`.

    Raises:
        ValueError: the same run or name twice, or an empty path.
    """
    groups: list[tuple[str, list[str]]] = []
    for argument in arguments:
        name, equals, members = argument.partition("=")
        is_group = equals and not os.path.exists(argument)
        groups.append((name, members.split(",")) if is_group else ("", [argument]))
        if not all(groups[-1][1]):
            raise ValueError(f"{argument}: a path is empty; delete the comma or '=' beside it")
    paths = [path for _, members in groups for path in members]
    names = dict(zip(paths, run_names(paths)))
    named: dict[str, list[str]] = {}
    for name, members in groups:
        name = name or names[members[0]]
        if name in named:
            raise ValueError(f"{name} is given twice; write {name}=PATH,PATH for several seeds")
        named[name] = members
    return named


def run_names(paths: Sequence[str]) -> list[str]:
    """Name each run after its folder, with as many parents as tell all runs apart.

    Raises:
        ValueError: the same run twice.
    """
    folders = []
    for path in paths:
        # A name that is no text could not be printed
        shown = os.path.abspath(path).encode("utf-8", "backslashreplace").decode()
        parts = shown.split(os.sep)
        for inner in ("results.json", "inference"):
            if parts[-1] == inner:
                parts.pop()
        if parts in folders:
            raise ValueError(f"{path} is given twice")
        folders.append(parts)
    for depth in range(1, max(map(len, folders)) + 1):
        names = ["/".join(parts[-depth:]) for parts in folders]
        if len(set(names)) == len(names):
            break
    return names


def comparison_table(columns: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Format what the evaluators compare, n/a for what a run lacks.

    Args:
        columns: name -> task -> {metric: value} of one run, or of several with other seeds.
    """
    table = [
        [*title, *(_mean(row.get(name, ()), len(group)) for name, group in columns.items())]
        for title, row in comparison_rows(columns).items()
    ]
    return format_table(["", "#proposals", *columns], table)


def comparison_rows(
    columns: Mapping[str, Sequence[dict[str, Any]]],
) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return metric and number of proposals -> column -> what its runs have of it."""
    rows: dict[tuple[str, str], dict[str, list[float]]] = {}  # in the order of the first with them
    for name, group in columns.items():
        for results in group:
            for evaluator in EVALUATORS:
                for *title, value in evaluator.compare(results):
                    rows.setdefault(tuple(title), {}).setdefault(name, []).append(float(value))
    return rows


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval (Student's t).

    The half is nan for one value; both are nan if one value is.
    """
    if not values or not all(map(math.isfinite, values)):
        return math.nan, math.nan
    if len(values) == 1:
        return values[0], math.nan
    t = float(stats.t.ppf(0.975, len(values) - 1))
    return statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(len(values))


def _mean(values: Sequence[float], count: int) -> float | str:
    """Return the mean of ``count`` values, and for several its interval; nan if one is missing."""
    mean, half = interval(values if len(values) == count else ())
    return mean if math.isnan(half) else f"{mean:.2f} +- {half:.2f}"
