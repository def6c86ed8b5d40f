"""Proposal recall and VOC average precision, at every proposal budget from one pass.

    model -> budgets.py -> recall_evaluator.py -> recall.py --+
                           proposal_errors.py ----------------+-> runs.py -> figures.py
                           voc_evaluator.py ----> voc_ap.py --+
    model -> views.py -> pictures.py -> panels.py: what the networks make of single images
    models -> audit.py (second_look.py) -> audit_page.py: objects that nobody labelled

Every number without a budget in its name is one of the model as it is configured
(MODEL.RPN.POST_NMS_TOPK_TEST proposals), which is the model that is deployed. With "@K", it is that
of the same model with K proposals.
"""

import os

from detectron2.config import CfgNode

from .budgets import with_budgets
from .ground_truth import load_ground_truth
from .proposal_errors import ProposalErrorEvaluator
from .recall_evaluator import ProposalRecallEvaluator
from .runs import EVALUATORS, WritingEvaluators
from .voc_evaluator import VOCDetectionEvaluator

__all__ = [
    "EVALUATORS",
    "ProposalErrorEvaluator",
    "ProposalRecallEvaluator",
    "VOCDetectionEvaluator",
    "WritingEvaluators",
    "build_evaluators",
    "load_ground_truth",
    "with_budgets",
]


def build_evaluators(
    cfg: CfgNode, dataset_name: str, output_dir: str | None = None
) -> WritingEvaluators:
    """Build all EVALUATORS that apply, for the outputs of ``with_budgets(model, BUDGETS)``.

    Args:
        cfg: with the keys of ``add_nrpn_config``; TEST.PROPOSALS gives budgets and thresholds. For
            a ProposalNetwork, there is no AP.
        dataset_name: a name in DatasetCatalog.
        output_dir: the folder to write to; by default OUTPUT_DIR/inference, or a folder in it for
            each of several datasets.
    """
    ground_truth = load_ground_truth(dataset_name)
    built = [kind.from_config(cfg, ground_truth) for kind in EVALUATORS]
    if output_dir is None:
        folder = [dataset_name] if len(cfg.DATASETS.TEST) > 1 else []
        output_dir = os.path.join(cfg.OUTPUT_DIR, "inference", *folder)
    return WritingEvaluators([e for e in built if e is not None], dataset_name, output_dir)
