#!/usr/bin/env python
"""Draw what a trained model finds in images and videos, and write it as JSON and CSV.

    python tools/predict.py --config-file configs/shapes_nrpn.yaml --input images/ \\
        --output predictions MODEL.WEIGHTS output/demo/model_final.pth
    python tools/predict.py ... --proposals --top-k 20   # what the RPN proposes

--input is a file, a glob in quotes, or a folder, of which all images and videos are taken, those in
folders below it, too. Pictures and videos keep their paths below --output, which also gets

results.json  a list in COCO's result format: image_id is the file's path below the folder that all
              inputs share (of a video's frame, followed by its number from 0), category_id counts
              classes from 0 (proposals: 0), category_name is the class, bbox is x, y, width and
              height in pixels
results.csv   the same as a table

They have everything the model gives; pictures and crops show what --top-k and --min-score let
through. What cannot be read is reported and skipped; then the exit code is 1.
"""

import argparse
import os
import sys

from command import new_parser, parse, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="the config of the training")
    parser.add_argument("--input", required=True, help="an image or video, a folder, or a glob")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--proposals", action="store_true", help="proposals, not detections")
    parser.add_argument("--batch", type=int, default=1, help="images of one size at a time")
    parser.add_argument("--top-k", type=int, default=10, help="boxes to draw (default: 10)")
    parser.add_argument("--min-score", type=float, help="to draw (default: 0.5; proposals: 0)")
    parser.add_argument(
        "--top", type=int, default=0, metavar="K", help="draw the K best where none has --min-score"
    )
    parser.add_argument("--crops", action="store_true", help="write what is in each drawn box")
    args = parse(parser, args)
    if args.batch < 1:
        parser.error(f"--batch is {args.batch}; it must be at least 1")
    if args.min_score is None:
        args.min_score = 0.0 if args.proposals else 0.5
    return args


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.checkpoint.trained_model import load_model
    from nrpn_d2.deploy.predict_files import Shown, common_folder, predict_files
    from nrpn_d2.deploy.predictor import Predictor, class_names
    from nrpn_d2.deploy.sources import find_files
    from nrpn_d2.engine.defaults import build_cfg

    files = find_files(args.input, leave_out=args.output)
    output, folder = map(os.path.realpath, (args.output, common_folder(files)))
    if os.path.commonpath([output, folder]) == output:
        message = f"the input lies in --output {args.output}, where pictures would replace images"
        sys.exit(f"{message}; choose another folder")
    cfg = build_cfg(args.config_file, args.opts)
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork" and not args.proposals:
        sys.exit("a ProposalNetwork detects nothing; see what it proposes with --proposals")
    names = ["proposal"] if args.proposals else class_names(cfg)
    options = {"proposals": args.proposals, "batch": args.batch, "crops": args.crops}
    options["shown"] = Shown(args.top_k, args.min_score, args.top)
    done = predict_files(Predictor(cfg, load_model(cfg)), files, args.output, names, **options)
    images = f"{done.images} image{'s' * (done.images != 1)}"
    print(f"{done.boxes} boxes in {images}, {done.drawn} of them drawn: {args.output}")
    if done.images:
        rate, in_model = (done.images / s for s in (done.seconds, done.model_seconds))
        print(f"{rate:.1f} images per second with files and pictures, {in_model:.1f} in the model")
    if done.without:
        nothing = f"No score reaches --min-score {args.min_score:g} in {done.without} images"
        rest = f"their best {args.top} are drawn" if args.top else "--top 3 draws their best 3"
        print(f"{nothing} (the best is {done.best:.2f}); {rest}")
    if done.failures:
        listed = "\n  ".join(done.failures)
        sys.exit(f"{len(done.failures)} of {len(files)} files could not be used:\n  {listed}")


if __name__ == "__main__":
    run(main, parse_args(), log=True)
