"""
Proposal recall and VOC average precision, at every proposal budget from one pass.

    model -> budgets.py -> recall_evaluator.py -> recall.py --+
                           proposal_errors.py ----------------+-> report.py, output.py
                           voc_evaluator.py ----> voc_ap.py --+

budgets.py           a model -> its detections at several numbers of proposals
evaluator.py         what the evaluators have in common: accumulate, gather
recall_evaluator.py  DatasetEvaluator of proposals: recall
proposal_errors.py   DatasetEvaluator of proposals: hits, duplicates, background
voc_evaluator.py     DatasetEvaluator of detections: AP
recall.py            recall and AR of proposals: pure functions
voc_ap.py            average precision: pure functions
ground_truth.py      registered dataset -> flat arrays
boxes.py             IoU, areas, checks
report.py            tables for the log
output.py            results.json, results.csv and figures
proposal_files.py    proposals as files: written, read safely, evaluated without a model
proposal_methods.py  proposals without training: Selective Search, Edge Boxes, baselines
"""

import os

from .budgets import BudgetedModel, with_budgets
from .ground_truth import GroundTruth, load_ground_truth
from .output import WritingEvaluators
from .proposal_errors import ProposalErrorEvaluator
from .recall_evaluator import ProposalRecallEvaluator
from .voc_evaluator import VOCDetectionEvaluator

__all__ = [
    "BudgetedModel",
    "GroundTruth",
    "ProposalErrorEvaluator",
    "ProposalRecallEvaluator",
    "VOCDetectionEvaluator",
    "WritingEvaluators",
    "build_evaluators",
    "load_ground_truth",
    "with_budgets",
]


def build_evaluators(cfg, dataset_name):
    """
    Args:
        cfg (CfgNode): with the keys of ``add_nrpn_config``; TEST.PROPOSALS gives the budgets.
        dataset_name (str): a name in DatasetCatalog.

    Returns:
        DatasetEvaluators: proposal recall and errors, and AP unless the model is a
        ProposalNetwork, for the outputs of ``with_budgets(model, cfg.TEST.PROPOSALS.BUDGETS)``.
        They write into OUTPUT_DIR/inference, or a folder in it for each of several datasets.
    """
    ground_truth = load_ground_truth(dataset_name)
    budgets = cfg.TEST.PROPOSALS.BUDGETS
    evaluators = [
        ProposalRecallEvaluator(
            dataset_name,
            budgets=budgets,
            iou_thresholds=cfg.TEST.PROPOSALS.IOU_THRESHOLDS,
            ground_truth=ground_truth,
        ),
        ProposalErrorEvaluator(dataset_name, budgets=budgets, ground_truth=ground_truth),
    ]
    if cfg.MODEL.META_ARCHITECTURE != "ProposalNetwork":
        evaluators.append(VOCDetectionEvaluator(dataset_name, ground_truth=ground_truth))
    folder = [dataset_name] if len(cfg.DATASETS.TEST) > 1 else []
    output_dir = os.path.join(cfg.OUTPUT_DIR, "inference", *folder)
    return WritingEvaluators(evaluators, dataset_name, output_dir)
