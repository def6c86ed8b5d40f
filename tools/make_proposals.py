#!/usr/bin/env python
"""Write the proposals of a method that is not trained into a file.

    python tools/make_proposals.py edge_boxes --dataset shapes_test --output edge_boxes.pkl
    python tools/make_proposals.py gaussian --dataset shapes_test --fit-to shapes_train \\
        --output gaussian.pkl
    python tools/make_proposals.py bing --model ObjectnessTrainedModel --json instances_val.json \\
        --images val2017 --output bing.json

METHOD is sliding_window, uniform, gaussian, superpixels, selective_search, edge_boxes or bing.
uniform and gaussian take the sizes of objects from --fit-to. The file goes to
tools/evaluate_proposals.py or to Detectron2, see nrpn_d2/evaluation/proposal_files.py; it has
ranks, but no scores: the methods' own are no probabilities.
"""

import argparse


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument("--config-file", default="", help="registers the datasets that it names")
    parser.add_argument("--dataset", help="a registered name (default: the only DATASETS.TEST)")
    parser.add_argument("--json", help="a dataset in COCO's format, instead of --dataset")
    parser.add_argument("--images", default="", help="folder of the images of --json")
    parser.add_argument("--output", required=True, help="file to write, .pkl or .json")
    parser.add_argument("--num", type=int, default=1000, help="proposals per image (default: 1000)")
    parser.add_argument("--fit-to", help="dataset whose objects uniform and gaussian imitate")
    parser.add_argument("--model", help="bing: folder; edge_boxes: structured edges (optional)")
    parser.add_argument("--processes", type=int, help="default: one for each usable core")
    return parser.parse_args(args)


def main(args: argparse.Namespace) -> None:
    from detectron2.data import DatasetCatalog

    from nrpn_d2.data.proposal_files import Proposals, check_ending, save_proposals
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.evaluation.dataset import find_dataset
    from nrpn_d2.evaluation.proposal_methods import (
        build_method,
        object_statistics,
        propose_in_images,
    )
    from nrpn_d2.utils.parallel import usable_cores

    check_ending(args.output)
    cfg = build_cfg(args.config_file)
    objects = object_statistics(find_dataset(cfg, args.fit_to)) if args.fit_to else None
    method = build_method(args.method, objects, args.model)
    dataset = find_dataset(cfg, args.dataset, args.json, args.images)
    processes = usable_cores() if args.processes is None else args.processes
    boxes = propose_in_images(DatasetCatalog.get(dataset), method, args.num, processes)
    proposals = {image_id: Proposals(of_image, None) for image_id, of_image in boxes.items()}
    save_proposals(args.output, proposals)
    count = sum(map(len, boxes.values()))
    print(f"{count} proposals in {len(boxes)} images: {args.output}")


if __name__ == "__main__":
    arguments = parse_args()
    from nrpn_d2.engine.command_line import run

    run(main, arguments)
