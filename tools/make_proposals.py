#!/usr/bin/env python
"""Write the proposals of a method that is not trained into a file.

    python tools/make_proposals.py edge_boxes --dataset shapes_test --output edge_boxes.pkl
    python tools/make_proposals.py gaussian --dataset shapes_test --fit-to shapes_train \\
        --output gaussian.pkl
    python tools/make_proposals.py bing --model ObjectnessTrainedModel --json instances_val.json \\
        --images val2017 --output bing.json

The file goes to tools/evaluate_proposals.py or to Detectron2, see nrpn_d2/evaluation/
proposal_files.py. Its scores are ranks: the methods' own are no probabilities. uniform and gaussian
take the sizes of objects from --fit-to.
"""

import argparse
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2
import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from evaluate_proposals import add_dataset_arguments, find_dataset, load_config
from tqdm import tqdm

from nrpn_d2.data import VOCError
from nrpn_d2.evaluation import load_ground_truth
from nrpn_d2.evaluation.proposal_files import Proposals, rank_logits, save_proposals
from nrpn_d2.evaluation.proposal_methods import (
    FITTED,
    METHODS,
    MethodError,
    box_statistics,
    build_method,
)
from nrpn_d2.utils.parallel import usable_cores


class ProposeInImage:
    """Record -> (image id, Proposals); the same on any number of processes."""

    def __init__(self, method, num):
        self.method, self.num = method, num

    def __call__(self, record):
        cv2.setNumThreads(1)  # the processes share the cores
        image = np.ascontiguousarray(read_image(record["file_name"], "BGR"))
        rng = np.random.default_rng(zlib.crc32(str(record["image_id"]).encode()))
        boxes = self.method(image, self.num, rng).astype(np.float32)
        return record["image_id"], Proposals(boxes, rank_logits(len(boxes)))


def make_proposals(records, method, num, processes):
    """
    Args:
        records (list[dict]): of a dataset.
        method (callable): of :func:`build_method`.
        num (int): proposals per image, at most.
        processes (int): how many to use.

    Returns:
        dict: image id -> :class:`Proposals`, in the order of the records.

    Raises:
        BrokenProcessPool: if one of several processes dies.
    """
    propose = ProposeInImage(method, num)
    if processes == 1:
        return dict(map(propose, tqdm(records, unit="image")))
    with ProcessPoolExecutor(processes) as executor:
        found = executor.map(propose, records, chunksize=4)
        return dict(tqdm(found, total=len(records), unit="image"))


def object_statistics(dataset_name):
    """:func:`box_statistics` of the objects of a dataset."""
    ground_truth = load_ground_truth(dataset_name)
    records = DatasetCatalog.get(dataset_name)
    sizes = np.array([(record["width"], record["height"]) for record in records], float)
    usable = (ground_truth.boxes[:, 2:] > ground_truth.boxes[:, :2]).all(axis=1)
    return box_statistics(ground_truth.boxes[usable], sizes[ground_truth.images[usable]])


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=list(METHODS))
    add_dataset_arguments(parser)
    parser.add_argument("--output", required=True, help="file to write, .pkl or .json")
    parser.add_argument("--num", type=int, default=1000, help="proposals per image (default: 1000)")
    parser.add_argument("--fit-to", help=f"dataset whose objects {' and '.join(FITTED)} imitate")
    parser.add_argument("--model", help="bing: folder; edge_boxes: structured edges (optional)")
    parser.add_argument(
        "--processes", type=int, default=usable_cores(), help="default here: %(default)s"
    )
    args = parser.parse_args(arguments)
    for value, name in ((args.num, "--num"), (args.processes, "--processes")):
        if value < 1:
            parser.error(f"{name} must be at least 1")
    if not args.output.endswith((".pkl", ".json")):
        parser.error(f"--output {args.output}: must end in .pkl (Detectron2) or .json (COCO)")
    if args.method in FITTED and not args.fit_to:
        parser.error(f"{args.method} needs --fit-to DATASET, a training set")
    return args


def main(arguments=None):
    args = parse_arguments(arguments)
    try:
        records = DatasetCatalog.get(find_dataset(args, load_config(args.config_file)))
        objects = object_statistics(args.fit_to) if args.fit_to else None
        method = build_method(args.method, objects, args.model)
        proposals = make_proposals(records, method, args.num, args.processes)
    except (OSError, MethodError, VOCError, KeyError) as e:
        sys.exit(str(e))
    except BrokenProcessPool:
        sys.exit(
            f"{args.method}: one of {args.processes} processes died, perhaps for lack of memory; "
            "nothing was written. Try fewer --processes: with 1, the error shows itself"
        )
    save_proposals(args.output, proposals)
    count = sum(len(found.boxes) for found in proposals.values())
    print(f"{count} proposals in {len(proposals)} images: {args.output}")


if __name__ == "__main__":
    main()
