#!/usr/bin/env python
"""Draw what an RPN takes for objects and is not labelled as one, to see whether it is one.

    python tools/show_false_positives.py --config-file configs/bccd_rpn.yaml \\
        MODEL.WEIGHTS output/bccd_rpn/model_final.pth

Writes OUTPUT_DIR/false_positives.png: the test images with most proposals of a score over
MODEL.NRPN.FP_SCORE (0.7) whose IoU with every object is below MODEL.NRPN.FP_IOU (0.3). Where these
(blue, with their scores) are objects that nobody labelled (orange, dashed: labelled), a network
must not learn from them.
"""

import argparse
import os


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", required=True, help="the config of the training")
    parser.add_argument("--num-images", type=int, default=6)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    return parser.parse_intermixed_args(args)


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.checkpoint.trained_model import load_model
    from nrpn_d2.engine.defaults import setup_run
    from nrpn_d2.engine.trainer import Trainer
    from nrpn_d2.evaluation import with_budgets
    from nrpn_d2.evaluation.false_positives import find_false_positives, panel
    from nrpn_d2.evaluation.figures import picture_grid
    from nrpn_d2.evaluation.ground_truth import load_ground_truth

    cfg = setup_run(args.config_file, args.opts, eval_only=True)
    dataset_name = cfg.DATASETS.TEST[0]
    images = find_false_positives(
        with_budgets(load_model(cfg), cfg.TEST.PROPOSALS.BUDGETS),
        Trainer.build_test_loader(cfg, dataset_name),
        load_ground_truth(dataset_name),
        score=cfg.MODEL.NRPN.FP_SCORE,
        iou=cfg.MODEL.NRPN.FP_IOU,
    )
    total = sum(len(boxes) for _, boxes, *_ in images)
    print(f"{total} false positives in {len(images)} images of {dataset_name}")
    worst = sorted(images, key=lambda image: -len(image[1]))[: args.num_images]
    panels = [panel(os.path.basename(image[0]), *image) for image in worst]
    path = os.path.join(cfg.OUTPUT_DIR, "false_positives.png")
    picture_grid(panels, 3, "false positive with score").savefig(path, dpi=150)
    print(f"Wrote {path}: the images with most of them")


if __name__ == "__main__":
    arguments = parse_args()
    from nrpn_d2.engine.command_line import run

    run(main, arguments)
