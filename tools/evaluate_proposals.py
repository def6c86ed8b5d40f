#!/usr/bin/env python
"""Recall and errors of the proposals in a file, of any method, without a model.

    python tools/evaluate_proposals.py proposals/edge_boxes.pkl --dataset shapes_test \\
        --output output/edge_boxes
    python tools/evaluate_proposals.py found.json --json instances_val.json --images val2017
    python tools/evaluate_proposals.py proposals/bccd.pkl --config-file configs/bccd_rpn.yaml

The file is Detectron2's (.pkl) or COCO's result format (.json), see
nrpn_d2/evaluation/proposal_files.py. The dataset is a registered name, a COCO-format file, or
DATASETS.TEST of a config. Writes results.json, results.csv and figures to --output (default: the
name of the file without its ending); tools/compare_runs.py overlays several.
"""

import argparse
import os
import sys

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.logger import setup_logger

from nrpn_d2 import add_nrpn_config, check_nrpn_config
from nrpn_d2.data import VOCError, register_datasets
from nrpn_d2.evaluation.proposal_files import evaluate_proposals
from nrpn_d2.utils.config_file import merge_config_file
from nrpn_d2.utils.safe_load import CheckpointError


def load_config(config_file):
    """The config of the file, or without one the defaults; its datasets are registered."""
    cfg = get_cfg()
    add_nrpn_config(cfg)
    if config_file:
        merge_config_file(cfg, config_file)
        check_nrpn_config(cfg)
        register_datasets(cfg)
    return cfg


def register_coco(json_file, image_folder):
    """Register a COCO-format file under its own name, which is returned."""
    if not os.path.isfile(json_file):
        sys.exit(f"--json {json_file}: there is no such file")
    name = os.path.splitext(os.path.basename(json_file))[0]
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_coco_instances(name, {}, json_file, image_folder)
    try:
        DatasetCatalog.get(name)  # the classes become known when it is read
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as e:
        sys.exit(
            f"--json {json_file} does not hold images, annotations and categories in COCO's "
            f"format: {e!r}"
        )
    return name


def add_dataset_arguments(parser):
    """Ways to name a dataset; :func:`find_dataset` takes the result."""
    parser.add_argument("--dataset", help="a registered name (default: DATASETS.TEST)")
    parser.add_argument("--config-file", help="registers its VOC-layout folder; budgets, IoUs")
    parser.add_argument("--json", help="objects in COCO's format, instead of --dataset")
    parser.add_argument("--images", default="", help="folder of the images of --json")


def find_dataset(args, cfg):
    """The name in DatasetCatalog that the arguments mean; exits where there is none."""
    if args.json:
        if args.dataset:
            sys.exit("--dataset and --json exclude each other")
        return register_coco(args.json, args.images)
    names = [args.dataset] if args.dataset else list(cfg.DATASETS.TEST)
    if len(names) != 1:
        sys.exit(f"--dataset or --json is needed: DATASETS.TEST is {names}")
    if names[0] not in DatasetCatalog:
        sys.exit(f"dataset {names[0]!r} is not registered; known: {', '.join(DatasetCatalog)}")
    return names[0]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="proposals, .pkl or .json")
    add_dataset_arguments(parser)
    parser.add_argument("--output", help="folder to write to")
    parser.add_argument("--budgets", type=int, nargs="+", help="default: TEST.PROPOSALS.BUDGETS")
    args = parser.parse_args(arguments)
    setup_logger(name="nrpn_d2")
    cfg = load_config(args.config_file)
    try:
        evaluate_proposals(
            args.file,
            find_dataset(args, cfg),
            args.output or os.path.splitext(args.file)[0],
            budgets=args.budgets or cfg.TEST.PROPOSALS.BUDGETS,
            iou_thresholds=cfg.TEST.PROPOSALS.IOU_THRESHOLDS,
        )
    except (OSError, ValueError, VOCError, CheckpointError) as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
