#!/usr/bin/env python
"""Train variants of a config with several seeds and tabulate what they gave.

    python tools/study.py configs/studies/voc_animals.yaml --jobs 2
    python tools/study.py STUDY.yaml --report               tables and figures of what there is
    python tools/study.py STUDY.yaml --dataset voc_animals_val --output runs KEY VALUE ...

Each run is train_net.py in its own folder, OUTPUT/<variant>_<iterations>_seed<k>. A run that has
ended is not run again, an interrupted one is resumed, and one that fails stops no other, so the
study can be stopped and started at any time. OUTPUT/results.csv has all results, a line each; a run
that is in it needs no folder any more. OUTPUT/report gets tables.md and figures. What may be in
STUDY.yaml: see nrpn_d2/engine/study.py.
"""

import argparse
import os
import sys

from command import new_parser, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("study", metavar="STUDY.yaml")
    parser.add_argument("--output", help="folder, instead of the study's")
    parser.add_argument("--dataset", help="to evaluate on, instead of the study's")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--num-gpus", type=int, default=0, help="of each run; 0 is the CPU")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument(
        "--evaluate", nargs=3, metavar=("VARIANT", "ITERATIONS", "SEED"), help="one run that ended"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the configs'")
    return parser.parse_intermixed_args(args)


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.engine.study import Run, Study
    from nrpn_d2.engine.study_report import write_report
    from nrpn_d2.engine.study_results import read_results
    from nrpn_d2.engine.study_runs import evaluate_run, run_study

    study = Study.read(args.study)
    study.output = os.path.abspath(args.output or study.output)
    study.dataset = args.dataset or study.dataset
    if args.evaluate:
        variant, iterations, seed = args.evaluate
        run = Run(variant, int(iterations), int(seed))
        evaluate_run(study, run, os.path.join(study.output, run.folder))
        return
    results, failures = read_results(os.path.join(study.output, "results.csv")), {}
    if not args.report:
        study.check(args.opts)
        program = os.path.abspath(__file__)
        train = os.path.join(os.path.dirname(os.path.dirname(program)), "train_net.py")
        this = [sys.executable, program, os.path.abspath(args.study), "--output", study.output]
        results, failures = run_study(
            study,
            train=[sys.executable, train, "--num-gpus", str(args.num_gpus)],
            evaluate=[*this, "--dataset", study.dataset, "--evaluate"],
            jobs=args.jobs,
            threads=args.threads,
            options=args.opts,
        )
    print(write_report(study, results, os.path.join(study.output, "report")))
    if failures:
        sys.exit("\n".join(f"{run.folder}: {message}" for run, message in failures.items()))


if __name__ == "__main__":
    run(main, parse_args(), log=True)
