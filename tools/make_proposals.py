#!/usr/bin/env python
"""Write the proposals of a method that is not trained into a file.

    python tools/make_proposals.py edge_boxes --dataset shapes_test --output edge_boxes.pkl
    python tools/make_proposals.py selective_search --json instances_val.json \\
        --images val2017 --output selective_search.json

METHOD is selective_search, edge_boxes or sliding_window. The file goes to
tools/evaluate_proposals.py or to Detectron2, see nrpn_d2/data/proposal_files.py; it has ranks, but
no scores: the methods' own are no probabilities.
"""

import argparse

from command import new_parser, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument("--config-file", default="", help="registers the datasets that it names")
    parser.add_argument("--dataset", help="a registered name (default: the only DATASETS.TEST)")
    parser.add_argument("--json", help="a dataset in COCO's format, instead of --dataset")
    parser.add_argument("--images", default="", help="folder of the images of --json")
    parser.add_argument("--output", required=True, help="file to write, .pkl or .json")
    parser.add_argument("--num", type=int, default=1000, help="proposals per image (default: 1000)")
    parser.add_argument("--processes", type=int, help="default: one for each usable core")
    return parser.parse_args(args)


def main(args: argparse.Namespace) -> None:
    from detectron2.data import DatasetCatalog

    from nrpn_d2.data.proposal_files import Proposals, check_ending, save_proposals
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.evaluation.proposal_files import find_dataset
    from nrpn_d2.evaluation.proposal_methods import propose_in_images
    from nrpn_d2.utils.parallel import usable_cores

    check_ending(args.output)
    dataset = find_dataset(build_cfg(args.config_file), args.dataset, args.json, args.images)
    processes = usable_cores() if args.processes is None else args.processes
    boxes = propose_in_images(DatasetCatalog.get(dataset), args.method, args.num, processes)
    proposals = {image_id: Proposals(of_image, None) for image_id, of_image in boxes.items()}
    save_proposals(args.output, proposals)
    count = sum(map(len, boxes.values()))
    print(f"{count} proposals in {len(boxes)} images: {args.output}")


if __name__ == "__main__":
    run(main, parse_args())
