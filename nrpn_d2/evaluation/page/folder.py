"""What a run has written into its folder, as far as it got."""

import json
import logging
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from glob import escape, glob
from typing import Any

import numpy as np
import yaml
from detectron2.config import get_cfg

from ...config import add_nrpn_config
from ...utils.config_file import flat_config
from ...utils.text_files import load_json, read_bytes
from ..runs import read_run

logger = logging.getLogger(__name__)

# The scalars that are drawn: what evaluations give for one class is left out
_DRAWN = re.compile(
    r"(.*/)?(total_loss|loss_\w+|validation/.*|nrpn/\w+|bbox/AP50|box_proposals/AR)"
)
RECORD = "run.json"
MAX_POINTS = 300  # of a curve over the iterations
MAX_PICTURES = 8
MAX_CONFIG_BYTES = 2**20


@dataclass
class Evaluation:
    """What :func:`read_run` reads, and mistakes.json."""

    metrics: dict[str, dict[str, float]]
    curves: dict[str, Any]
    mistakes: dict[str, Any]

    def get(self, task: str, metric: str) -> float:
        """Return a metric; nan if the evaluation lacks it."""
        return self.metrics.get(task, {}).get(metric, math.nan)

    @property
    def is_detector(self) -> bool:
        """Whether there are detections, not just proposals."""
        return "bbox" in self.metrics


@dataclass
class RunFolder:
    """A run, finished or not; what it lacks is empty."""

    path: str
    name: str
    record: dict[str, Any]  # run.json: command, versions, commit, and how it ended
    config: dict[str, Any]  # keys with dots -> values
    changes: list[tuple[str, Any, Any]]  # those that differ from the defaults: key, value, default
    history: dict[str, tuple[np.ndarray, np.ndarray]]  # scalar -> iterations (P,), values (P,)
    last: int  # iteration; -1 without any
    evaluations: dict[str, Evaluation]  # dataset -> its last evaluation
    pictures: list[str]  # files that the run drew, the latest first


def read_folder(path: str, name: str = "") -> RunFolder:
    """Read a run's OUTPUT_DIR; of the folder or results.json of an evaluation in it, just that one.

    A file that cannot be read is logged and counts as missing.

    Raises:
        FileNotFoundError: there is no such path.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist; give the OUTPUT_DIR of a run")
    places = [path] if os.path.isfile(path) else _results_of(path)
    folder = os.path.abspath(os.path.dirname(path) if os.path.isfile(path) else path)
    while "inference" in folder.split(os.sep)[-2:] and not _is_run(folder):
        folder = os.path.dirname(folder)
    record = _tolerant(load_json, os.path.join(folder, RECORD))
    config = flat_config(_tolerant(_load_config, os.path.join(folder, "config.yaml")))
    rows = _history_rows(os.path.join(folder, "metrics.json"))
    evaluations = {}
    for place in places:
        read = _tolerant(read_run, place)
        if read:
            file = os.path.join(os.path.dirname(place), "mistakes.json")
            is_of_this = "mistakes" in read["metrics"]  # else it is of an earlier evaluation
            mistakes = _tolerant(load_json, file) if is_of_this else None
            evaluation = Evaluation(read["metrics"], read["curves"], mistakes or {})
            evaluations[read["dataset"]] = evaluation
    pictures = glob(os.path.join(escape(folder), "pictures", "**", "*.jpg"), recursive=True)
    return RunFolder(
        path=folder,
        name=name or os.path.basename(folder),
        record=record if isinstance(record, dict) else {},
        config=config,
        changes=_changes(config),
        history=_columns(rows),
        last=max(rows, default=-1),
        evaluations=evaluations,
        pictures=sorted(pictures, key=_changed, reverse=True)[:MAX_PICTURES],
    )


def _is_run(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "config.yaml"))


def _changes(config: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    defaults = get_cfg()
    add_nrpn_config(defaults)
    defaults = flat_config(yaml.safe_load(defaults.dump()))
    return [
        (key, value, defaults.get(key, "none"))
        for key, value in config.items()
        if key not in ("OUTPUT_DIR", "VERSION") and value != defaults.get(key)
    ]


def _results_of(folder: str) -> list[str]:
    """Return the results.json of each dataset; those of earlier test sets may lie a level above."""
    is_inner = os.path.basename(os.path.abspath(folder)) == "inference"
    levels = [
        sorted(glob(os.path.join(escape(folder), inner, "results.json")))
        for inner in ("", *(("*",) if is_inner else ("inference", "inference/*")))
    ]
    return max(levels, key=lambda places: max(map(_changed, places), default=-1))


def _changed(path: str) -> float:
    """Return when a file was changed last; 0 for one that vanished meanwhile."""
    return os.path.getmtime(path) if os.path.exists(path) else 0


def _tolerant(read: Callable[[str], Any], path: str) -> Any:
    """Return what ``read`` does, None for a file that is missing or broken."""
    if not os.path.isfile(path):
        return None
    try:
        return read(path)
    except (ArithmeticError, OSError, ValueError) as error:
        logger.warning("Left out of the page: %s", error)
        return None


def _load_config(path: str) -> Any:
    """Read a config that Detectron2 wrote, with YAML's aliases for equal lists."""
    try:
        return yaml.safe_load(read_bytes(path, MAX_CONFIG_BYTES))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: invalid YAML ({error})") from None


def _history_rows(path: str) -> dict[int, dict[str, float]]:
    """Return iteration -> scalars; after a resume, the later ones of an iteration count."""
    rows: dict[int, dict[str, float]] = {}
    if not os.path.isfile(path):
        return rows
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
                iteration = int(row["iteration"])
                drawn = {
                    key: float(value)
                    for key, value in row.items()
                    if isinstance(value, (int, float)) and _DRAWN.fullmatch(key)
                }
            except (ArithmeticError, ValueError, TypeError, LookupError, RecursionError):
                continue  # the last line of a run that was killed
            rows.setdefault(iteration, {}).update(drawn)
    return rows


def _columns(rows: dict[int, dict[str, float]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return scalar -> iterations and values, where there are many the means of neighbours."""
    columns: dict[str, list[tuple[int, float]]] = {}
    for iteration in sorted(rows):
        for key, value in rows[iteration].items():
            columns.setdefault(key, []).append((iteration, value))
    history = {}
    for key, points in columns.items():
        chunk = -(-len(points) // MAX_POINTS)
        starts = np.arange(0, len(points), chunk)
        sizes = np.diff(starts, append=len(points))
        x, y = (np.add.reduceat(values, starts) / sizes for values in np.array(points, float).T)
        history[key] = x, y
    return history
