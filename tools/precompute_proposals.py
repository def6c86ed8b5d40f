#!/usr/bin/env python
"""Write what a trained RPN proposes into a file.

    python tools/precompute_proposals.py --config-file configs/bccd_nrpn.yaml \\
        --dataset bccd_test --output proposals/bccd_test.pkl \\
        MODEL.WEIGHTS output/bccd_nrpn/model_final.pth MODEL.RPN.POST_NMS_TOPK_TEST 2000

A .pkl is for Detectron2: MODEL.LOAD_PROPOSALS True, DATASETS.PROPOSAL_FILES_TRAIN or _TEST
('proposals/bccd_test.pkl',), one file per dataset, and MODEL.PROPOSAL_GENERATOR.NAME
PrecomputedProposals. A .json is in COCO's result format. Both are read by
tools/evaluate_proposals.py. MODEL.RPN.POST_NMS_TOPK_TEST is the number per image.
"""

import argparse


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", required=True, help="the config of the training")
    parser.add_argument("--dataset", help="a registered name (default: the only DATASETS.TEST)")
    parser.add_argument("--output", required=True, help="file to write, .pkl or .json")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    return parser.parse_intermixed_args(args)


def main(args: argparse.Namespace) -> None:
    from detectron2.data import DatasetCatalog
    from detectron2.data.detection_utils import read_image
    from tqdm import tqdm

    from nrpn_d2.checkpoint.trained_model import load_model
    from nrpn_d2.data.proposal_files import Proposals, check_ending, save_proposals
    from nrpn_d2.deploy.predictor import Predictor
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.evaluation.proposal_files import find_dataset

    check_ending(args.output)
    cfg = build_cfg(args.config_file, args.opts)
    records = DatasetCatalog.get(find_dataset(cfg, args.dataset))
    predictor, proposals = Predictor(cfg, load_model(cfg)), {}
    for record in tqdm(records, unit="image"):
        image = predictor.inputs(read_image(record["file_name"], cfg.INPUT.FORMAT))
        found = predictor.propose_batch([image])[0].to("cpu")
        boxes, logits = found.proposal_boxes.tensor.numpy(), found.objectness_logits.numpy()
        proposals[record["image_id"]] = Proposals(boxes, logits)
    save_proposals(args.output, proposals)
    count = sum(len(of_image.boxes) for of_image in proposals.values())
    print(f"{count} proposals in {len(proposals)} images: {args.output}")


if __name__ == "__main__":
    arguments = parse_args()
    from nrpn_d2.engine.command_line import run

    run(main, arguments)
