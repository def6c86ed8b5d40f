#!/usr/bin/env python
"""Find objects that nobody labelled, decide on a page what they are, and correct the dataset.

    # trained models judge DATASETS.TRAIN (or --dataset NAME) ...
    python tools/audit_labels.py --config-file CONFIG --output audit --models A.pth,B.pth
    # ... or cross-validation's: 3 are trained, each judges the third that it did not see
    python tools/audit_labels.py --config-file CONFIG --output audit --folds 3 --num-gpus 1
    # open audit/audit.html, decide, export; then
    python tools/audit_labels.py --config-file CONFIG --apply decisions.json --output corrected

The page, candidates.json and candidates.csv list what the models find off every label, what most
models are surest of first. Folds are trained in --output, with the config's own schedule; run the
command again and it goes on. --apply writes the new folder (VOC layout, YOLO) or the new file
(COCO, .json) --output; the dataset itself stays as it is.
"""

import argparse
import os
import subprocess
import sys

from command import new_parser, parse, run

TRAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "train_net.py")


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="the config of the training")
    parser.add_argument("--dataset", help="a registered name (default: DATASETS.TRAIN)")
    parser.add_argument("--output", required=True, help="folder to write to; see --apply")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--models", metavar="A,B,...", help="checkpoints")
    source.add_argument("--folds", type=int, metavar="K", help="train K models, 2 to 20")
    source.add_argument("--apply", metavar="FILE", help="decisions that the page exported")
    parser.add_argument("--num-gpus", type=int, default=1, help="to train folds; 0: on the CPU")
    parser.add_argument(
        "--min-score", type=float, default=0.05, help="of a model, to count (default: 0.05)"
    )
    parser.add_argument("--top", type=int, default=200, help="candidates on the page (200)")
    args = parse(parser, args)
    if args.folds is not None and not 2 <= args.folds <= 20:
        parser.error(f"--folds is {args.folds}; it must be 2 to 20")
    if args.top < 0:
        parser.error(f"--top is {args.top}; it must be 0 or more")
    if not 0 <= args.min_score <= 1:
        parser.error(f"--min-score is {args.min_score}; it must be 0 to 1")
    return args


def train_folds(args: argparse.Namespace, name: str) -> list[str]:
    """Train what is not trained yet, each fold in a process of its own; return the weights."""
    from nrpn_d2.data.folds import fold_name
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.engine.resume import is_finished

    weights = []
    for fold in range(args.folds):
        train = fold_name(name, fold, args.folds, held_out=False)
        folder = os.path.join(args.output, train)
        weights.append(os.path.join(folder, "model_final.pth"))
        opts = [*args.opts, "DATASETS.TRAIN", str((train,)), "DATASETS.TEST", "()"]
        opts += ["OUTPUT_DIR", folder]
        if not is_finished(weights[-1], build_cfg(args.config_file, opts)):
            command = [sys.executable, TRAIN, "--config-file", args.config_file, "--resume"]
            command += ["--num-gpus", str(args.num_gpus), *opts]
            if subprocess.run(command).returncode:
                sys.exit(f"fold {fold} was not trained; see above, and run the command again")
    return weights


def main(args: argparse.Namespace) -> None:
    from detectron2.data import MetadataCatalog

    from nrpn_d2.checkpoint.trained_model import load_model
    from nrpn_d2.data.checks import check_registered
    from nrpn_d2.data.corrections import read_decisions, write_corrected
    from nrpn_d2.data.folds import fold_name
    from nrpn_d2.data.loader import build_test_loader
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.evaluation.audit import find_candidates, predict
    from nrpn_d2.evaluation.audit_page import write_candidates, write_sheet
    from nrpn_d2.evaluation.ground_truth import load_ground_truth

    cfg = build_cfg(args.config_file, [*args.opts, "MODEL.WEIGHTS", ""])
    if not args.dataset and len(cfg.DATASETS.TRAIN) != 1:
        sys.exit(f"DATASETS.TRAIN is {cfg.DATASETS.TRAIN}; choose one dataset with --dataset")
    name = args.dataset or cfg.DATASETS.TRAIN[0]
    check_registered(name, "--dataset" if args.dataset else "DATASETS.TRAIN")
    if args.apply:
        additions = read_decisions(args.apply, name)
        write_corrected(name, additions, args.output)
        print(f"Added {len(additions)} objects to a copy of {name}: {args.output}")
        if images := MetadataCatalog.get(name).get("image_root"):
            print(f"Its images, third in DATASETS.OWN: {os.path.abspath(images)}")
        return
    if args.folds:
        parts = [fold_name(name, fold, args.folds, held_out=True) for fold in range(args.folds)]
        judges = list(zip(train_folds(args, name), parts))
    else:
        judges = [(weights, name) for weights in args.models.split(",")]
    predictions = []
    for weights, part in judges:
        options = ["DATASETS.TEST", str((part,)), "MODEL.WEIGHTS", weights]
        options += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", str(args.min_score)]
        cfg = build_cfg(args.config_file, [*args.opts, *options])
        batches = build_test_loader(cfg, part)
        predictions.append(predict(load_model(cfg), batches, args.min_score))
    truth = load_ground_truth(name)
    candidates = find_candidates(predictions, truth)
    write_candidates(args.output, candidates)
    page = os.path.join(args.output, "audit.html")
    write_sheet(page, candidates[: args.top], truth)
    print(f"{len(candidates)} candidates, the best {min(len(candidates), args.top)} on {page}")


if __name__ == "__main__":
    run(main, parse_args(), log=True)
