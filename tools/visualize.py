#!/usr/bin/env python
"""Draw what the RPN and its nRPN see in images of a dataset.

    python tools/visualize.py false-positives --config-file configs/shapes_nrpn.yaml --worst \\
        MODEL.WEIGHTS output/demo/model_final.pth

anchors          the anchors of one place, and the best one of each object (needs no weights)
labels           anchors that are labelled objects: IoU and target of the score (most losses need
                 no weights: MODEL.WEIGHTS "")
proposals        the RPN's best proposals and the objects (paper, Fig. 1)
false-positives  proposals of score over MODEL.NRPN.FP_SCORE whose IoU with all is below FP_IOU
hard-negatives   the best proposals of RPN and nRPN (paper, Fig. 4), and the hard negatives that
                 a training step would choose

Images have the size of INPUT.MIN_SIZE_TEST. --compare draws what a second model makes of the same
images below the first.
"""

import argparse
import os

from command import new_parser, parse, run

WHAT = ("anchors", "labels", "proposals", "false-positives", "hard-negatives")
SUFFIXES = (".png", ".pdf", ".svg", ".jpg")


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="the config of the training")
    parser.add_argument("what", choices=WHAT, metavar="WHAT", help=", ".join(WHAT))
    parser.add_argument("--dataset", help="a registered name (default: first of DATASETS.TEST)")
    parser.add_argument("--images", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="boxes (default: 10)")
    parser.add_argument("--worst", action="store_true", help="images with most false positives")
    parser.add_argument("--compare", nargs=2, metavar=("CONFIG", "WEIGHTS"), help="another model")
    parser.add_argument("--output", help=f"{', '.join(SUFFIXES)} (default: OUTPUT_DIR/WHAT.png)")
    args = parse(parser, args)
    if args.images < 1 or args.top < 1:
        parser.error(f"--images {args.images} and --top {args.top} must be at least 1")
    if args.output and not args.output.lower().endswith(SUFFIXES):
        parser.error(f"--output {args.output} must end with {', '.join(SUFFIXES)}")
    return args


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.engine.visualize import Images, draw

    models = [Images(args.config_file, args.opts, args.dataset, args.what)]
    first = models[0]
    if args.compare:
        config_file, weights = args.compare
        opts = [*args.opts, "MODEL.WEIGHTS", weights]
        models.append(Images(config_file, opts, first.dataset, args.what))
    output = args.output or os.path.join(first.cfg.OUTPUT_DIR, f"{args.what}.png")
    print(draw(models, args.what, args.images, args.top, args.worst, output))


if __name__ == "__main__":
    run(main, parse_args())
