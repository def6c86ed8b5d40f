"""The tables of runs: a column per run or group of seeds, and the differences to the first."""

import itertools
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...utils.page import Cell, Html, details, element, number, paragraph, table
from ..comparison import comparison_rows, interval
from .folder import Evaluation
from .series import Groups, evaluations_of

MATRIX_CLASSES = 20  # with more, confusions are a list
MAX_CONFUSIONS = 50
KIND_WORDS = {
    "missed": "missed objects",
    "background": "detections on background (IoU below 0.3 with every object)",
    "localisation": "poor boxes (IoU of 0.3 to 0.5)",
    "class": "wrong classes (on an object of another class)",
    "duplicate": "duplicates (on an object that is found already)",
}

Rows = Mapping[tuple[Any, ...], Mapping[str, Sequence[float]]]  # title -> group -> value per run


def compared(header: Sequence[str], rows: Rows, groups: Groups) -> Html:
    """Return a table with a column per group and, from the second on, its difference."""
    first, *others = groups
    names = [f"{name} ({len(runs)})" if len(runs) > 1 else name for name, runs in groups.items()]
    differences = [f"{name} − {first}" for name in others] if others else []
    body = []
    for title, by_group in rows.items():
        means, cells = {}, []
        for name, runs in groups.items():
            values = by_group.get(name, ())
            mean, half = interval(values if len(values) == len(runs) else ())
            margin = "" if math.isnan(half) else f" ± {number(half, 2)}"
            cells.append(_cell(mean, f"{number(mean)}{margin}"))
            means[name] = mean
        for name in others:
            difference = means[name] - means[first]
            cells.append(_cell(difference, f"{'+' * (difference >= 0)}{number(difference)}"))
        body.append([*title, *cells])
    return table([*header, *names, *differences], body)


def _cell(value: float, text: str) -> Cell:
    return Cell("n/a") if math.isnan(value) else Cell(text, value)


def results_table(dataset: str, groups: Groups) -> Html:
    evaluations = evaluations_of(dataset, groups)
    rows = comparison_rows({name: [e.metrics for e in es] for name, es in evaluations.items()})
    first = sorted(rows, key=lambda row: (row[1].isdigit(), not row[0].startswith("mAP")))
    return _by_budget("metric", {row: rows[row] for row in first}, groups)


def _by_budget(name: str, rows: Rows, groups: Groups) -> Html:
    """Return a table of rows with title and number of proposals; of one run, that is a column."""
    if sum(map(len, groups.values())) > 1:
        return compared([name, "proposals"], rows, groups)
    budgets = dict.fromkeys(budget for _, budget in rows)
    by_title: dict[str, dict[str, float]] = {}
    for (title, budget), by_group in rows.items():
        by_title.setdefault(title, {})[budget] = next(iter(by_group.values()))[0]
    headers = (f"{budget} proposals" if budget.isdigit() else budget for budget in budgets)
    body = ([title, *(row.get(b, math.nan) for b in budgets)] for title, row in by_title.items())
    return table([name, *headers], body)


def kinds_table(dataset: str, groups: Groups) -> Html:
    """Return how many mistakes of each kind there are per image, at each run's threshold."""
    evaluations = itertools.chain(*evaluations_of(dataset, groups).values())
    # Proposals have no class, and several on an object are no mistake
    left_out = () if any(e.is_detector for e in evaluations) else ("class", "duplicate")
    rows = {
        (words,): _of_task(dataset, groups, "mistakes", kind)
        for kind, words in KIND_WORDS.items()
        if kind not in left_out
    }
    return compared(["mistakes per image"], rows, groups)


def _of_task(dataset: str, groups: Groups, task: str, key: str) -> dict[str, list[float]]:
    evaluations = evaluations_of(dataset, groups)
    return {name: [e.get(task, key) for e in es] for name, es in evaluations.items()}


def proposals_table(dataset: str, groups: Groups) -> Html:
    """Return what the best proposals are, in percent."""
    evaluations = itertools.chain(*evaluations_of(dataset, groups).values())
    budgets = dict.fromkeys(budget for e in evaluations for budget in e.curves.get("errors", {}))
    kinds = ("hit", "duplicate", "localisation", "background")
    rows = {
        (kind, budget): _of_task(dataset, groups, "proposal_errors", f"{kind}@{budget}")
        for kind in kinds
        for budget in budgets
    }
    return _by_budget("percent of the best proposals", rows, groups)


def classes_table(dataset: str, groups: Groups) -> Html:
    """Return a row per class: all that is known of it or, of several runs, AP50, else AR."""
    evaluations = [*itertools.chain(*evaluations_of(dataset, groups).values())]
    objects: dict[str, int] = {}
    for e in evaluations:
        objects |= e.curves.get("mistakes", {}).get("objects", {})
    task, metric = ("box_proposals", "AR")
    if any(e.is_detector for e in evaluations):
        task, metric = "bbox", "AP50"
    keys = dict.fromkeys(key for e in evaluations for key in e.metrics.get(task, {}))
    names = [key.partition("-")[2] for key in keys if key.startswith(f"{metric}-")]
    if sum(map(len, groups.values())) > 1:
        rows = {
            (name, objects.get(name, "")): _of_task(dataset, groups, task, f"{metric}-{name}")
            for name in names
        }
        return compared([f"class: {metric}", "objects"], rows, groups)
    (evaluation,) = evaluations
    columns = {
        "AP50": ("bbox", "AP50-"),
        "AP": ("bbox", "AP-"),
        "AR of proposals": ("box_proposals", "AR-"),
        "precision": ("mistakes", "precision-"),
        "recall": ("mistakes", "recall-"),
        "F1": ("mistakes", "F1-"),
    }
    rows = [
        [
            *(name, objects.get(name, "")),
            *(_percent(evaluation.get(task, key + name)) for task, key in columns.values()),
            evaluation.get("mistakes", f"threshold-{name}"),
        ]
        for name in dict.fromkeys([*names, *objects])
    ]
    return table(["class", "objects", *columns, "own best threshold"], rows)


def _percent(value: float) -> Cell:
    return Cell(value, shade=None if math.isnan(value) else value / 100)


def confusions(evaluation: Evaluation) -> Html:
    """Return the matrix of true and predicted classes or, of many classes, the commonest errors."""
    curve = evaluation.curves["mistakes"]
    names = [*curve["objects"]]
    counts = {(true, predicted): count for true, predicted, count in curve["confusions"]}
    if len(names) <= MATRIX_CLASSES:
        return _matrix(names, counts)
    wrong = sorted(((n, *pair) for pair, n in counts.items() if pair[0] != pair[1]), reverse=True)
    objects, detected = [*names, "background"], [*names, "missed"]
    rows = [(objects[true], detected[found], n) for n, true, found in wrong[:MAX_CONFUSIONS]]
    return table(["object", "detected as", "number"], rows)


def _matrix(names: Sequence[str], counts: Mapping[tuple[int, int], int]) -> Html:
    rows = []
    for true, name in enumerate([*names, "background"]):
        of_row = [counts.get((true, predicted), 0) for predicted in range(len(names) + 1)]
        total = max(sum(of_row), 1)
        cells = [Cell(count, shade=count / total) for count in of_row]
        if true == len(names):
            cells[-1] = Cell("")
        rows.append([name, *cells])
    return table(["object \\ detected as", *names, "missed"], rows, sortable=False)


def facts_table(facts: Iterable[tuple[str, Any]]) -> Html:
    rows = [(key, element("span", value)) for key, value in facts if value]
    return table(["", ""], rows, sortable=False) if rows else Html()


def changes_table(changes: Sequence[tuple[str, Any, Any]]) -> Html:
    if not changes:
        return paragraph("There is no config.yaml, or all keys have their defaults.")
    rows = [[element("code", key), _short(value), _short(old)] for key, value, old in changes]
    summary = f"{len(rows)} keys differ from the defaults of Detectron2 and of this package"
    return details(summary, table(["key", "here", "default"], rows))


def _short(value: Any) -> str:
    shortener = reprlib.Repr()
    shortener.maxlist = shortener.maxtuple = 20
    shortener.maxstring = shortener.maxother = 200
    return shortener.repr(value) if isinstance(value, (list, tuple)) else str(value)[:200]
