#!/usr/bin/env python
"""Draw what an RPN takes for objects and is not labelled as one, to see whether it is one.

    python tools/show_false_positives.py --config-file configs/bccd_rpn.yaml \\
        MODEL.WEIGHTS output/bccd_rpn/model_final.pth

Writes OUTPUT_DIR/false_positives.png: the test images with most proposals of a score over
MODEL.NRPN.FP_SCORE (0.7) whose IoU with every object is below MODEL.NRPN.FP_IOU (0.3). Where these
(green) are objects that nobody labelled (red: labelled), a network must not learn from them.
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


def confident_background(proposals, objects, score, iou):
    """The boxes (K, 4) of score over ``score`` whose IoU with each of ``objects`` is below ``iou``.

    Args:
        proposals: ``Instances`` with "proposal_boxes" and "objectness_logits".
        objects: (G, 4) tensor.
    """
    from detectron2.structures import Boxes, pairwise_iou

    sure = proposals[proposals.objectness_logits.sigmoid() > score].proposal_boxes
    overlaps = pairwise_iou(sure, Boxes(objects))  # (sure, G)
    return sure.tensor[(overlaps < iou).all(dim=1)]


def main(args: argparse.Namespace) -> None:
    import torch
    from detectron2.data import DatasetCatalog
    from detectron2.data.detection_utils import read_image

    from nrpn_d2.checkpoint.trained_model import load_model
    from nrpn_d2.engine.defaults import setup_run
    from nrpn_d2.engine.trainer import Trainer
    from nrpn_d2.evaluation import with_budgets
    from nrpn_d2.evaluation.figures import proposal_grid

    cfg = setup_run(args.config_file, args.opts, eval_only=True)
    model = with_budgets(load_model(cfg), cfg.TEST.PROPOSALS.BUDGETS)
    dataset_name = cfg.DATASETS.TEST[0]
    records = {record["image_id"]: record for record in DatasetCatalog.get(dataset_name)}
    found, nrpn = [], cfg.MODEL.NRPN
    for inputs in Trainer.build_test_loader(cfg, dataset_name):
        record = records[inputs[0]["image_id"]]
        objects = torch.tensor([a["bbox"] for a in record["annotations"]]).view(-1, 4).float()
        with torch.no_grad():
            proposals = model(inputs)[0]["proposals"].to("cpu")
        boxes = confident_background(proposals, objects, nrpn.FP_SCORE, nrpn.FP_IOU)
        found.append((boxes.numpy(), objects.numpy(), record["file_name"]))
    total = sum(len(boxes) for boxes, _, _ in found)
    print(f"{total} false positives in {len(found)} images of {dataset_name}")
    worst = sorted(found, key=lambda image: -len(image[0]))[: args.num_images]
    figure = proposal_grid(
        [read_image(file_name, "RGB") for _, _, file_name in worst],
        {"false positives": [boxes for boxes, _, _ in worst]},
        [objects for _, objects, _ in worst],
        top=total,
    )
    path = os.path.join(cfg.OUTPUT_DIR, "false_positives.png")
    figure.savefig(path, dpi=100)
    print(f"Wrote {path}: in green, those of the images with most of them")


if __name__ == "__main__":
    arguments = parse_args()
    from nrpn_d2.engine.command_line import run

    run(main, arguments)
