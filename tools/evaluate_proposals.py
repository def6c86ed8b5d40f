#!/usr/bin/env python
"""Evaluate the proposals in a file, of any method, without a model: recall and errors.

    python tools/evaluate_proposals.py proposals/edge_boxes.pkl --dataset shapes_test \\
        --output output/edge_boxes
    python tools/evaluate_proposals.py proposals.json --json instances_val.json --images val2017
    python tools/evaluate_proposals.py proposals/bccd.pkl --config-file configs/bccd_rpn.yaml

The file is Detectron2's (.pkl) or COCO's result format (.json), see
nrpn_d2/data/proposal_files.py. The dataset is a registered name, a COCO-format file, or
DATASETS.TEST of a config. Writes results.json, results.csv and figures to --output (default: the
name of the file without its ending); tools/compare_runs.py overlays several.
"""

import argparse
import os

from command import new_parser, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("file", help="proposals, .pkl or .json")
    parser.add_argument("--config-file", default="", help="names datasets, budgets and IoUs")
    parser.add_argument("--dataset", help="a registered name (default: the only DATASETS.TEST)")
    parser.add_argument("--json", help="objects in COCO's format, instead of --dataset")
    parser.add_argument("--images", default="", help="folder of the images of --json")
    parser.add_argument("--output", help="folder to write to")
    parser.add_argument("--budgets", type=int, nargs="+", help="default: TEST.PROPOSALS.BUDGETS")
    return parser.parse_args(args)


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.evaluation.proposal_files import evaluate_proposals, find_dataset

    budgets = ["TEST.PROPOSALS.BUDGETS", str(args.budgets)] if args.budgets else []
    cfg = build_cfg(args.config_file, ["MODEL.META_ARCHITECTURE", "ProposalNetwork", *budgets])
    dataset = find_dataset(cfg, args.dataset, args.json, args.images)
    evaluate_proposals(args.file, dataset, args.output or os.path.splitext(args.file)[0], cfg)


if __name__ == "__main__":
    run(main, parse_args(), log=True)
