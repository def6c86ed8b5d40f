"""The results of a study: results.csv, one line for each metric of each run."""

import csv
import json
import os
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from ..utils.saving import atomic_open
from .study import Run

TIME = "seconds per iteration"


class Result(NamedTuple):
    """A line of results.csv.

    ``nms`` is an NMS threshold, or "" for what does not depend on one.
    """

    variant: str
    iterations: int
    seed: int
    dataset: str
    nms: str
    metric: str
    value: float

    @property
    def run(self) -> Run:
        return Run(self.variant, self.iterations, self.seed)


def read_results(path: str) -> list[Result]:
    """Read a CSV of :func:`write_results`; a file that is not there has no results.

    Raises:
        ValueError: for a file with other columns or values.
    """
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as f:
        rows = csv.DictReader(f)
        if tuple(rows.fieldnames or ()) != Result._fields:
            raise ValueError(f"{path} is not the results of a study: its columns differ")
        try:
            return [_typed(row) for row in rows]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}") from error


def _typed(row: dict[str, str]) -> Result:
    numbers = {"iterations": int, "seed": int, "value": float}
    return Result(**{k: numbers.get(k, str)(v) for k, v in row.items()})


def write_results(path: str, results: Iterable[Result]) -> None:
    """Write results as CSV, sorted, so that a new run changes no line of the others."""
    with atomic_open(path, "w") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(Result._fields)
        rows.writerows([*r[:-1], f"{r.value:.6g}"] for r in sorted(results, key=lambda r: r[:-1]))


def training_time(folder: str) -> float | None:
    """Return the median seconds per iteration of a run, from metrics.json; None without one."""
    path = os.path.join(folder, "metrics.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        try:
            times = [json.loads(line).get("time") for line in f if line.strip()]
        except (ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is not the metrics of a run: {error}") from None
    times = [t for t in times if t is not None]
    return median(times) if times else None
