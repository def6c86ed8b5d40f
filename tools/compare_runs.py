#!/usr/bin/env python
"""Compare evaluations: one table, and the figures of recall, errors and precision in common.

    python tools/compare_runs.py output/rpn output/nrpn proposals/edge_boxes --output comparison

    python tools/compare_runs.py RPN=output/rpn_1,output/rpn_2 nRPN=output/nrpn_1,output/nrpn_2

A RUN is the OUTPUT_DIR of a training, a folder that tools/evaluate_proposals.py wrote, or a
results.json in one of them. It is named after its folder. All runs must be of one dataset: of
trainings with several, give OUTPUT_DIR/inference/<dataset>. NAME=RUN,RUN,... is one method trained
with several seeds: the table has the mean and its 95 % interval.
"""

import argparse

from command import new_parser, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--output", default="comparison", help="folder for figures and table")
    return parser.parse_args(args)


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.evaluation.comparison import compare_runs
    from nrpn_d2.evaluation.page.pages import write_comparison_page

    page = write_comparison_page(args.runs, args.output)
    try:
        print(compare_runs(args.runs, args.output))
        print(f"Figures and comparison.txt are in {args.output}")
    except FileNotFoundError:  # a run without an evaluation, or with several, has a page
        if len(args.runs) > 1:
            raise
    print(f"Open {page}")


if __name__ == "__main__":
    run(main, parse_args())
