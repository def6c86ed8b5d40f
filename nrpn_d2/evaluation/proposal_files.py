"""Proposals in files, evaluated without a model."""

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

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
        dataset_name: a name in DatasetCatalog.
        output_dir: folder to write to, made if it does not exist.
        cfg: TEST.PROPOSALS gives budgets and thresholds.

    Returns:
        task -> {metric: value}; nan for what depends on scores, if the file has only ranks.
    """
    proposals = assign_proposals(load_proposals(path), dataset_name, path)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
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
