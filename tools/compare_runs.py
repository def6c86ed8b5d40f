#!/usr/bin/env python
"""Compare evaluations: one table, and recall, errors and precision-recall in common figures.

    python tools/compare_runs.py output/rpn output/nrpn proposals/edge_boxes --output comparison

A RUN is the OUTPUT_DIR of a training, a folder that tools/evaluate_proposals.py wrote, or a
results.json in one of them. It is named after its folder. All runs must be of one dataset: of
trainings with several, give OUTPUT_DIR/inference/<dataset>.
"""

import argparse
import os
import sys

from nrpn_d2.evaluation.output import draw_runs, read_run
from nrpn_d2.evaluation.report import comparison_table


def run_names(paths):
    """
    The name of the folder of each run, with as many of its parents as tell all runs apart.

    Raises:
        ValueError: for the same run twice.
    """
    folders = []
    for path in paths:
        parts = os.path.abspath(path).split(os.sep)
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


def read_runs(paths):
    """
    Returns:
        dict: name -> run of :func:`read_run`.

    Raises:
        ValueError: for the same run twice, or runs of different datasets.
    """
    runs = dict(zip(run_names(paths), map(read_run, paths)))
    datasets = {run["dataset"] for run in runs.values()}
    if len(datasets) > 1:
        listed = ", ".join(f"{name} of '{run['dataset']}'" for name, run in runs.items())
        raise ValueError(f"runs of different datasets cannot be compared: {listed}")
    return runs


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--output", default="comparison", help="folder for figures and table")
    args = parser.parse_args(arguments)
    try:
        runs = read_runs(args.runs)
        os.makedirs(args.output, exist_ok=True)
    except (OSError, ValueError) as e:
        sys.exit(str(e))
    table = comparison_table({name: run["metrics"] for name, run in runs.items()})
    print(table)
    draw_runs(args.output, {name: run["curves"] for name, run in runs.items()})
    with open(os.path.join(args.output, "comparison.txt"), "w") as f:
        f.write(table + "\n")
    print(f"Figures and comparison.txt are in {args.output}")


if __name__ == "__main__":
    main()
