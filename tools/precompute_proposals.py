#!/usr/bin/env python
"""Write what a trained RPN proposes into a file.

    python tools/precompute_proposals.py --config-file configs/bccd_nrpn.yaml \\
        --dataset bccd_test --output proposals/bccd_test.pkl \\
        MODEL.WEIGHTS output/bccd_nrpn/model_final.pth MODEL.RPN.POST_NMS_TOPK_TEST 2000

A .pkl is for Detectron2: MODEL.LOAD_PROPOSALS True, DATASETS.PROPOSAL_FILES_TRAIN or _TEST
('proposals/bccd_test.pkl',), one file per dataset, and MODEL.PROPOSAL_GENERATOR.NAME
PrecomputedProposals. A .json is in COCO's result format. Both are read by
tools/evaluate_proposals.py. MODEL.RPN.POST_NMS_TOPK_TEST (1000) is the number per image.
"""

import argparse
import sys

from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from tqdm import tqdm

from nrpn_d2.checkpoint.trained_model import load_model
from nrpn_d2.data import register_datasets
from nrpn_d2.deploy.predictor import Predictor
from nrpn_d2.engine.defaults import build_cfg
from nrpn_d2.evaluation.proposal_files import Proposals, save_proposals


def precompute(cfg, model, records):
    """
    Args:
        cfg (CfgNode): INPUT.FORMAT and the size of test images.
        model (nn.Module): GeneralizedRCNN or ProposalNetwork, in evaluation mode.
        records (list[dict]): of a dataset.

    Returns:
        dict: image id -> :class:`Proposals`, all images.
    """
    predictor = Predictor(cfg, model)
    proposals = {}
    for record in tqdm(records, unit="image"):
        found = predictor.propose(read_image(record["file_name"], cfg.INPUT.FORMAT)).to("cpu")
        proposals[record["image_id"]] = Proposals(
            found.proposal_boxes.tensor.numpy(), found.objectness_logits.numpy()
        )
    return proposals


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the training")
    parser.add_argument("--dataset", help="a registered name (default: the only DATASETS.TEST)")
    parser.add_argument("--output", required=True, help="file to write, .pkl or .json")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    args = parser.parse_args(arguments)
    if not args.output.endswith((".pkl", ".json")):
        sys.exit(f"--output {args.output}: must end in .pkl (Detectron2) or .json (COCO)")
    cfg = build_cfg(args.config_file, args.opts)
    register_datasets(cfg)
    if not args.dataset and len(cfg.DATASETS.TEST) != 1:
        sys.exit(f"--dataset is needed: DATASETS.TEST is {list(cfg.DATASETS.TEST)}")
    records = DatasetCatalog.get(args.dataset or cfg.DATASETS.TEST[0])
    proposals = precompute(cfg, load_model(cfg), records)
    save_proposals(args.output, proposals)
    count = sum(len(found.boxes) for found in proposals.values())
    print(f"{count} proposals in {len(proposals)} images: {args.output}")


if __name__ == "__main__":
    main()
