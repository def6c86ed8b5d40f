#!/usr/bin/env python
"""Find images without objects on which a trained model is wrong, to train on them.

    python tools/mine_backgrounds.py --config-file output/mine/config.yaml --images photos/empty \\
        --output mined MODEL.WEIGHTS output/mine/model_final.pth

Runs the model on images in which there is no object (--images: a folder, a file or a glob in
quotes) or on a registered dataset (--dataset), and ranks them by the sum of the scores of false
positives: detections with --min-score whose IoU with every labelled object is below
MODEL.NRPN.FP_IOU (0.3). Of a ProposalNetwork proposals count. Writes to --output

backgrounds.html  a contact sheet: look at it before you train, and delete from the list what shows
                  an object
backgrounds.csv   all images with false positives
backgrounds.txt   the first --count of them without labelled objects, less near-duplicates: a
                  dataset of images without objects, which DATASETS.OWN takes

and prints the keys that add the list to the training set. What cannot be read is reported and
skipped; then the exit code is 1.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from command import new_parser, parse, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="the config of the training")
    parser.add_argument("--images", action="append", default=[], help="may be repeated")
    parser.add_argument(
        "--dataset", action="append", default=[], help="a registered name; may be repeated"
    )
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--count", type=int, help="images to take at most (default: all)")
    parser.add_argument(
        "--min-score", type=float, help="default: 0.5; of proposals MODEL.NRPN.FP_SCORE (0.7)"
    )
    parser.add_argument("--batch", type=int, default=1, help="images of one size at a time")
    args = parse(parser, args)
    if not args.images and not args.dataset:
        parser.error("give --images or --dataset")
    if args.batch < 1 or (args.count is not None and args.count < 1):
        parser.error("--batch and --count must be at least 1")
    return args


def main(args: argparse.Namespace) -> None:
    from detectron2.data import DatasetCatalog

    from nrpn_d2.checkpoint.trained_model import load_model
    from nrpn_d2.data.checks import check_registered
    from nrpn_d2.deploy import backgrounds
    from nrpn_d2.deploy.predict_files import common_folder
    from nrpn_d2.deploy.predictor import Predictor, class_names
    from nrpn_d2.deploy.sources import find_files
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.utils.page import write_page

    files = [file for pattern in args.images for file in find_files(pattern, args.output)]
    records = [{"file_name": file} for file in files]
    cfg = build_cfg(args.config_file, args.opts)
    for name in args.dataset:
        check_registered(name, "--dataset")
        records += DatasetCatalog.get(name)
    # Of an image that is there twice, the record with more objects
    records.sort(key=lambda record: len(record.get("annotations", ())))
    records = list({record["file_name"]: record for record in records}.values())
    only_proposes = cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork"
    default = cfg.MODEL.NRPN.FP_SCORE if only_proposes else 0.5
    min_score = default if args.min_score is None else args.min_score
    ranked, failures = backgrounds.find_backgrounds(
        Predictor(cfg, load_model(cfg)),
        records,
        ["proposal"] if only_proposes else class_names(cfg),
        min_score=min_score,
        max_iou=cfg.MODEL.NRPN.FP_IOU,
        max_covered=cfg.MODEL.NRPN.IGNORE_IOA,
        proposals=only_proposes,
        batch=args.batch,
    )
    taken = backgrounds.to_learn_from(ranked, args.count)
    print(
        f"False positives of score {min_score:g} or more are in {len(ranked)} of {len(records)} "
        f"images; {len(taken)} are to learn from"
    )
    stem = os.path.join(args.output, "backgrounds")
    backgrounds.write_table(f"{stem}.csv", ranked, taken)
    write_page(f"{stem}.html", "Backgrounds", list(backgrounds.page_content(ranked, taken)))
    if taken:
        folder = common_folder(image.path for image in taken)
        backgrounds.write_list(f"{stem}.txt", taken, folder)
        name, number = "backgrounds", 1
        while name in DatasetCatalog:
            name, number = f"backgrounds{number + 1}", number + 1
        own = [*cfg.DATASETS.OWN, [name, os.path.abspath(f"{stem}.txt"), folder]]
        train = (*cfg.DATASETS.TRAIN, name)
        print(f"Look at {stem}.html. To train on the list, give these keys:")
        print(f"DATASETS.OWN {_quoted(own)} DATASETS.TRAIN {_quoted(train)}")
    if failures:
        listed = "\n  ".join(failures)
        sys.exit(f"{len(failures)} of {len(records)} files could not be used:\n  {listed}")


def _quoted(value: Sequence) -> str:
    """Return a value as a word of a command line; in double quotes if nothing speaks against it."""
    return shlex.quote(str(value)) if set(str(value)) & set('"$`\\!') else f'"{value}"'


if __name__ == "__main__":
    run(main, parse_args(), log=True)
