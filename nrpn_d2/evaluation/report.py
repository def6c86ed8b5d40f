"""Tables for the log, in the layout of the paper's Tables 1 and 2."""

import math
import re

from tabulate import tabulate


def detection_table(rows, class_names):
    """
    The layout of Table 1: AP at IoU 0.5 by class.

    Args:
        rows (dict): number of proposals -> metrics of :class:`VOCDetectionEvaluator`.
        class_names (list[str]): the columns; with more than 20 classes, they are the rows.

    Returns:
        str
    """
    columns = [f"AP50-{name}" for name in class_names] + ["AP50"]
    table = [
        [k, *(_two_decimals(metrics[column]) for column in columns)] for k, metrics in rows.items()
    ]
    table.insert(0, ["#proposals", *class_names, "mAP"])
    if len(class_names) > 20:
        table = list(zip(*table))
    return tabulate(table, headers="firstrow", disable_numparse=True, stralign="right")


def recall_table(results, budgets, size_ranges, thresholds):
    """
    The layout of Table 2: recall by number of proposals, object size and IoU threshold, and AR.

    Args:
        results (dict): metrics of :class:`ProposalRecallEvaluator`.
        budgets, size_ranges, thresholds: its arguments.

    Returns:
        str
    """
    table = []
    for budget in budgets:
        for size in size_ranges:
            suffix = ("" if size == "all" else size.lower()) + f"@{budget}"
            keys = [f"R{100 * t:g}{suffix}" for t in thresholds] + [f"AR{suffix}"]
            table.append([budget, size, *(_two_decimals(results[key]) for key in keys)])
    headers = ["#proposals", "size", *(f"IoU {t:g}" for t in thresholds), "AR"]
    return tabulate(table, headers=headers, disable_numparse=True, stralign="right")


def error_table(results, budgets, scores, kinds):
    """
    Args:
        results (dict): metrics of :class:`ProposalErrorEvaluator`.
        budgets, scores, kinds (Sequence): what they are for.

    Returns:
        str: percent by number of proposals, then numbers per image by score.
    """
    table = [[k, "%", *(_two_decimals(results[f"{kind}@{k}"]) for kind in kinds)] for k in budgets]
    for s in scores:
        keys = [*(f"{kind}>{s}" for kind in kinds), f"on_empty>{s}"]
        table.append([f"score > {s}", "per image", *(_two_decimals(results[key]) for key in keys)])
    headers = ["#proposals", "", *kinds, "on images without objects"]
    return tabulate(table, headers=headers, disable_numparse=True, stralign="right")


def comparison_table(runs):
    """
    Recall and AR by number of proposals and IoU, confident background proposals, and mean AP.

    Args:
        runs (dict): name -> task -> metrics of this package's evaluators. Shown is what any has.

    Returns:
        str: one column per run; n/a for what a run lacks.
    """
    rows = {}  # in the order of the first run that has them
    for name, tasks in runs.items():
        for title, value in _compared(tasks):
            rows.setdefault(title, {})[name] = value
    table = [
        [*title, *(_two_decimals(values.get(name, math.nan)) for name in runs)]
        for title, values in rows.items()
    ]
    headers = ["", "#proposals", *runs]
    return tabulate(table, headers=headers, disable_numparse=True, stralign="right")


def _compared(tasks):
    """Of one run, ((metric, number of proposals), value) for each row of the comparison."""
    for key, value in tasks.get("box_proposals", {}).items():
        metric, _, budget = key.partition("@")
        if budget.isdigit() and metric == "AR":
            yield (metric, budget), value
        elif budget.isdigit() and (threshold := re.fullmatch(r"R([\d.]+)", metric)):
            yield (f"recall, IoU {float(threshold[1]) / 100:g}", budget), value
    if "proposal_errors" in tasks:
        errors = tasks["proposal_errors"]
        # Counted among as many proposals as the largest budget; other runs may have another.
        budgets = [int(key.partition("@")[2]) for key in errors if key.startswith("background@")]
        title = ("background, score > 0.7, per image", str(max(budgets, default="")))
        yield title, errors.get("background>0.7", math.nan)
    for task in [task for task in tasks if task.startswith("bbox@")] or ["bbox"]:
        if task in tasks:
            yield ("mAP, IoU 0.5", task.partition("@")[2]), tasks[task].get("AP50", math.nan)


def _two_decimals(value):
    return "n/a" if math.isnan(value) else f"{value:.2f}"
