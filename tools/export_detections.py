#!/usr/bin/env python
"""Export a trained model's detections, proposals or false positives, to look at them elsewhere.

    python tools/export_detections.py output/demo
    python tools/export_detections.py output/demo --what false-positives --format fiftyone
    python tools/export_detections.py --config-file configs/bccd_rpn.yaml --what proposals \\
        MODEL.WEIGHTS output/bccd_rpn/model_final.pth MODEL.RPN.POST_NMS_TOPK_TEST 50

RUN is the OUTPUT_DIR of a training: its config and last checkpoint. Writes to --output

WHAT.json           COCO's format, with images, names of the categories, and scores: for viewers
WHAT_results.json   COCO's result format: COCO("ground_truth.json").loadRes("WHAT_results.json")
ground_truth.json   the objects; difficult ones are crowds, which COCO's evaluation ignores

--format fiftyone also adds the objects, and the predictions as a field WHAT_RUN, to the FiftyOne
dataset of the same name: export several runs to see them side by side. False positives: proposals
with a score over MODEL.NRPN.FP_SCORE (0.7) whose IoU with every object is below FP_IOU (0.3).
"""

import argparse
import os

from command import new_parser, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--config-file", help="instead of a RUN; needs MODEL.WEIGHTS")
    parser.add_argument("--dataset", help="a registered name (default: the only DATASETS.TEST)")
    parser.add_argument(
        "--what", choices=("detections", "proposals", "false-positives"), default="detections"
    )
    parser.add_argument("--format", choices=("coco", "fiftyone"), default="coco")
    parser.add_argument("--output", help="folder to write to (default: OUTPUT_DIR/export)")
    parser.add_argument("opts", nargs="*", metavar="[RUN] KEY VALUE", help="override the config's")
    args = parser.parse_intermixed_args(args)
    args.run = None if args.config_file else next(iter(args.opts), None)
    if not args.config_file and not args.run:
        parser.error("give a RUN, the OUTPUT_DIR of a training, or --config-file")
    args.opts = args.opts[bool(args.run) :]
    return args


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.checkpoint.trained_model import load_model, of_run
    from nrpn_d2.deploy.coco_export import predict_dataset, write_coco
    from nrpn_d2.deploy.fiftyone_export import add_to_fiftyone, import_fiftyone
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.evaluation.proposal_files import find_dataset

    if args.format == "fiftyone":
        import_fiftyone()  # before the work
    if args.run:
        args.config_file, weights = of_run(args.run)
        args.opts = ["OUTPUT_DIR", os.path.abspath(args.run), "MODEL.WEIGHTS", weights, *args.opts]
    cfg = build_cfg(args.config_file, args.opts)
    dataset, folder = find_dataset(cfg, args.dataset), args.output
    folder = folder or os.path.join(args.run or cfg.OUTPUT_DIR, "export")
    predictions = predict_dataset(cfg, load_model(cfg), dataset, args.what)
    images_folder, count = write_coco(folder, dataset, args.what, predictions)
    print(f"{count} {args.what.replace('-', ' ')}: {os.path.join(folder, args.what)}.json")
    print(f"Images, which viewers ask for: {images_folder}")
    if args.format == "fiftyone":
        run = os.path.basename(os.path.normpath(cfg.OUTPUT_DIR))
        field = f"{args.what}_{run}".replace("-", "_").replace(".", "_")
        add_to_fiftyone(folder, args.what, images_folder, dataset, field)
        print(f"Field {field} of the FiftyOne dataset {dataset}: fiftyone app launch {dataset}")


if __name__ == "__main__":
    run(main, parse_args())
