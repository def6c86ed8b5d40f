"""Proposals in files, evaluated without a model, and the dataset that they belong to."""

import os

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances

from ..data.checks import check_registered
from ..data.proposal_files import Proposals, assign_proposals, load_proposals
from . import build_evaluators


def evaluate_proposals(
    path: str, dataset_name: str, output_dir: str, cfg: CfgNode
) -> dict[str, dict[str, float]]:
    """Evaluate the proposals in a file as those of a ProposalNetwork.

    Images that the file lacks have no proposals. The model "as it is configured" is the file with
    all its proposals.

    Args:
        path: a file for :func:`load_proposals`, whose errors are raised, as well as those of
            :func:`assign_proposals`.
        cfg: of a ProposalNetwork; TEST.PROPOSALS gives budgets and thresholds.

    Returns:
        task -> {metric: value}; nan for what depends on scores, if the file has only ranks.
    """
    proposals = assign_proposals(load_proposals(path), dataset_name, path)
    evaluators = build_evaluators(cfg, dataset_name, output_dir)
    evaluators.reset()
    none = Proposals(np.empty((0, 4), np.float32), np.empty(0, np.float32))
    for record in DatasetCatalog.get(dataset_name):
        boxes, logits = proposals.get(record["image_id"], none)
        instances = Instances((0, 0))  # the evaluators do not ask for the size
        instances.proposal_boxes = Boxes(torch.from_numpy(boxes))
        if logits is not None:
            instances.objectness_logits = torch.from_numpy(logits)
        evaluators.process([record], [{"proposals": instances}])
    return evaluators.evaluate()


def find_dataset(
    cfg: CfgNode, name: str | None = None, json_file: str | None = None, image_folder: str = ""
) -> str:
    """Return the name in DatasetCatalog of what a command line asks for.

    Args:
        cfg: its DATASETS.TEST is the default, if that is one name.
        json_file: objects in COCO's format; registered under the file's name.
        image_folder: of the images of ``json_file``.

    Raises:
        ValueError: no dataset, several, or one that is not registered.
    """
    if json_file:
        if name:
            raise ValueError(f"--dataset {name} and --json {json_file} exclude each other")
        return _register_coco(json_file, image_folder)
    names = [name] if name else list(cfg.DATASETS.TEST)
    if len(names) != 1:
        raise ValueError(f"name one dataset with --dataset: DATASETS.TEST is {names}")
    check_registered(names[0], "--dataset" if name else "DATASETS.TEST")
    return names[0]


def _register_coco(json_file: str, image_folder: str) -> str:
    name = os.path.splitext(os.path.basename(json_file))[0]
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_coco_instances(name, {}, json_file, image_folder)
    try:
        DatasetCatalog.get(name)  # the classes become known when it is read
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as e:
        raise ValueError(f"--json {json_file} is not in COCO's format: {e!r}") from e
    return name
