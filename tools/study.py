#!/usr/bin/env python
"""Train variants of a config with several seeds and tabulate what they gave.

    python tools/study.py configs/studies/voc_animals.yaml --jobs 2
    python tools/study.py STUDY.yaml --report               tables and figures of what there is
    python tools/study.py STUDY.yaml --dataset voc_animals_val --output runs -- KEY VALUE ...

Each run is train_net.py in its own folder, OUTPUT/<variant>_<iterations>_seed<k>. A run that has
ended is not run again, an interrupted one is resumed, and one that fails stops no other, so the
study can be stopped and started at any time. OUTPUT/results.csv has all results, a line each; a run
that is in it needs no folder any more. OUTPUT/report gets tables.md and figures. What may be in
STUDY.yaml: see nrpn_d2/study.py.
"""
import argparse
import os
import sys
from typing import List, Optional

from detectron2.utils.logger import setup_logger

from nrpn_d2 import study_report
from nrpn_d2.study import Result, Run, Study, evaluate_run, read_results, run_study

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def write_report(study: Study, results: List[Result], folder: str) -> str:
    """Write tables.md and figures.

    Returns:
        The tables.
    """
    os.makedirs(folder, exist_ok=True)
    results = [r for r in results if r.iterations in study.iterations]
    values = study_report.by_seed(results, study.dataset)
    rows = study_report.rows_of(results, list(study.variants))
    if not rows:
        return "No run has ended yet.\n"
    tables = (
        f"{study.dataset}: mean and 95 % interval over seeds\n\n"
        + study_report.mean_table(values, rows, study.columns)
        + f"\nDifference to {study.baseline}, paired by seed, and p of the paired t-test\n\n"
        + study_report.difference_table(values, rows, study.columns, study.baseline)
    )
    with open(os.path.join(folder, "tables.md"), "w") as f:
        f.write(tables)
    recalls = [f"R{100 * t:g}" for t in study.iou_thresholds]
    along_nms = [study_report.read_column(c)[0] for c in study.columns]
    along_nms = list(dict.fromkeys(m for m in along_nms if "@" in m))
    figures = {
        "budgets": study_report.budget_figure(values, rows, study.budgets, ["AR", *recalls]),
        "nms": study_report.nms_figure(values, rows, study.nms_thresholds, along_nms),
        "calibration": study_report.calibration_figure(
            values, rows, study.calibration_budget
        ),
    }
    if len(study.iterations) > 1:
        figures["schedule"] = study_report.schedule_figure(values, rows, along_nms)
    for name, figure in figures.items():
        figure.savefig(os.path.join(folder, f"{name}.png"), dpi=110)
    return tables


def main(arguments: Optional[List[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", metavar="STUDY.yaml")
    parser.add_argument("--output", help="folder, instead of the study's")
    parser.add_argument("--dataset", help="to evaluate on, instead of the study's")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--num-gpus", type=int, default=0, help="of each run; 0 is the CPU")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument(
        "--evaluate", nargs=3, metavar=("VARIANT", "ITERATIONS", "SEED"), help="of one run that ended"
    )
    parser.add_argument("opts", nargs="*", help="overrides for train_net.py, after --")
    args = parser.parse_args(arguments)
    setup_logger(name="nrpn_d2")
    try:
        study = Study.read(args.study)
        study.output = args.output or study.output
        study.dataset = args.dataset or study.dataset
        if args.evaluate:
            variant, iterations, seed = args.evaluate
            run = Run(variant, int(iterations), int(seed))
            evaluate_run(study, run, os.path.join(study.output, run.folder))
            return
        study.check(args.opts)
        results, failures = read_results(os.path.join(study.output, "results.csv")), {}
        if not args.report:
            program = [sys.executable, os.path.abspath(__file__), os.path.abspath(args.study)]
            results, failures = run_study(
                study,
                train=[sys.executable, os.path.join(ROOT, "train_net.py"),
                       "--num-gpus", str(args.num_gpus)],
                evaluate=[*program, "--output", os.path.abspath(study.output),
                          "--dataset", study.dataset, "--evaluate"],
                jobs=args.jobs,
                threads=args.threads,
                options=args.opts,
            )
        print(write_report(study, results, os.path.join(study.output, "report")))
    except ValueError as error:
        sys.exit(str(error))
    if failures:
        sys.exit("\n".join(f"{run.folder}: {message}" for run, message in failures.items()))


if __name__ == "__main__":
    main()
