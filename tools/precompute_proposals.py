#!/usr/bin/env python
"""Write what a trained RPN proposes into a file, for a dataset or for any images.

    python tools/precompute_proposals.py --config-file configs/bccd_nrpn.yaml \\
        --dataset bccd_test --output proposals/bccd_test.pkl \\
        MODEL.WEIGHTS output/bccd_nrpn/model_final.pth MODEL.RPN.POST_NMS_TOPK_TEST 2000
    python tools/precompute_proposals.py --config-file output/mine/config.yaml \\
        --images photos/ --output proposals.json MODEL.WEIGHTS output/mine/model_final.pth

Images are a folder with all below it, a glob or one file; their ids are their paths in the folder.
A .pkl is for Detectron2 (see docs/proposals.md), a .json is in COCO's result format; both are read
by tools/evaluate_proposals.py. MODEL.RPN.POST_NMS_TOPK_TEST is the number per image.
"""

import argparse
import os
import sys

from command import new_parser, parse, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="the config of the training")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dataset", help="a registered name (default: the only DATASETS.TEST)")
    source.add_argument("--images", help="a folder, a glob, or an image, instead of a dataset")
    parser.add_argument("--output", required=True, help="file to write, .pkl or .json")
    return parse(parser, args)


def main(args: argparse.Namespace) -> None:
    from detectron2.data import DatasetCatalog
    from tqdm import tqdm

    from nrpn_d2.checkpoint.trained_model import load_model
    from nrpn_d2.data.proposal_files import Proposals, check_ending, save_proposals
    from nrpn_d2.deploy.predict_files import common_folder
    from nrpn_d2.deploy.predictor import Predictor
    from nrpn_d2.deploy.sources import find_files, read_image
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.evaluation.proposal_files import find_dataset

    check_ending(args.output)
    cfg = build_cfg(args.config_file, args.opts)
    if args.images:
        files = find_files(args.images, args.output)
        folder = args.images if os.path.isdir(args.images) else common_folder(files)
        images = {os.path.relpath(file, folder).replace(os.sep, "/"): file for file in files}
    else:
        records = DatasetCatalog.get(find_dataset(cfg, args.dataset))
        images = {record["image_id"]: record["file_name"] for record in records}
    predictor, proposals, failures = Predictor(cfg, load_model(cfg)), {}, []
    for image_id, file in tqdm(images.items(), unit="image"):
        try:
            inputs = predictor.inputs_of_rgb(read_image(file))
        except ValueError as error:
            failures.append(f"{file}: {error}")
            continue
        found = predictor.propose_batch([inputs])[0].to("cpu")
        boxes, logits = found.proposal_boxes.tensor.numpy(), found.objectness_logits.numpy()
        proposals[image_id] = Proposals(boxes, logits)
    save_proposals(args.output, proposals)
    count = sum(len(of_image.boxes) for of_image in proposals.values())
    print(f"{count} proposals in {len(proposals)} images: {args.output}")
    if failures:
        sys.exit(f"{len(failures)} of {len(images)} images are not in it:\n" + "\n".join(failures))


if __name__ == "__main__":
    run(main, parse_args())
