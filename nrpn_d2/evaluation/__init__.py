"""
Proposal recall and VOC average precision, at every proposal budget from one pass.

    model -> budgets.py -> recall_evaluator.py -> recall.py --+
                           voc_evaluator.py ----> voc_ap.py --+-> report.py

budgets.py           a model -> its detections at several numbers of proposals
evaluator.py         what the evaluators have in common: accumulate, gather
recall_evaluator.py  DatasetEvaluator of proposals
voc_evaluator.py     DatasetEvaluator of detections
recall.py            recall and AR of proposals: pure functions
voc_ap.py            average precision: pure functions
ground_truth.py      registered dataset -> flat arrays
boxes.py             IoU, areas, checks
report.py            tables
"""

from detectron2.evaluation import DatasetEvaluators

from .budgets import BudgetedModel, with_budgets
from .ground_truth import GroundTruth, load_ground_truth
from .recall_evaluator import ProposalRecallEvaluator
from .voc_evaluator import VOCDetectionEvaluator

__all__ = [
    "BudgetedModel",
    "GroundTruth",
    "ProposalRecallEvaluator",
    "VOCDetectionEvaluator",
    "build_evaluators",
    "load_ground_truth",
    "with_budgets",
]


def build_evaluators(cfg, dataset_name, output_dir=None):
    """
    Args:
        cfg (CfgNode): with the keys of ``add_nrpn_config``; TEST.PROPOSALS gives the budgets.
        dataset_name (str): a name in DatasetCatalog.

    Returns:
        DatasetEvaluators: proposal recall, and AP unless the model is a ProposalNetwork. They
        evaluate the outputs of ``with_budgets(model, cfg.TEST.PROPOSALS.BUDGETS)``.
    """
    ground_truth = load_ground_truth(dataset_name)
    recall = ProposalRecallEvaluator(
        dataset_name,
        budgets=cfg.TEST.PROPOSALS.BUDGETS,
        iou_thresholds=cfg.TEST.PROPOSALS.IOU_THRESHOLDS,
        ground_truth=ground_truth,
    )
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        return DatasetEvaluators([recall])
    return DatasetEvaluators(
        [recall, VOCDetectionEvaluator(dataset_name, ground_truth=ground_truth)]
    )
