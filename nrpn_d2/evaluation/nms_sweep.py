"""A model's proposals at several NMS thresholds, from one forward pass.

Scores that mean something else change what non-maximum suppression keeps, so ways of training are
compared along its threshold, not at one.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluators
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from torch import nn

from .ground_truth import load_ground_truth
from .proposal_errors import ProposalErrorEvaluator
from .recall_evaluator import ProposalRecallEvaluator
from .score_evaluator import ScoreEvaluator


@torch.no_grad()
def propose(
    model: nn.Module,
    batched_inputs: list[dict[str, Any]],
    nms_thresholds: Sequence[float],
    num_proposals: int,
) -> dict[float, list[dict[str, Any]]]:
    """Propose as the model's RPN does with each ``MODEL.RPN.NMS_THRESH``.

    Args:
        model: a ``ProposalNetwork`` or ``GeneralizedRCNN`` with a ``HardNegativeRPN``.
        num_proposals: the most that are kept of an image.

    Returns:
        NMS threshold -> what a ``ProposalNetwork`` gives for ``batched_inputs``.
    """
    # A ProposalNetwork has all that this method needs, but not the method
    images = GeneralizedRCNN.preprocess_image(model, batched_inputs)
    rpn, features = model.proposal_generator, model.backbone(images.tensor)
    maps = [features[f] for f in rpn.in_features]
    anchors = rpn.anchor_generator(maps)
    logits, deltas = rpn.predict(maps)
    boxes = rpn._decode_proposals(anchors, deltas)
    limits = rpn.pre_nms_topk[False], num_proposals, rpn.min_box_size, False  # not in training
    outputs = {}
    for threshold in nms_thresholds:
        proposals = find_top_rpn_proposals(boxes, logits, images.image_sizes, threshold, *limits)
        outputs[threshold] = [
            {"proposals": detector_postprocess(x, image["height"], image["width"])}
            for x, image in zip(proposals, batched_inputs)
        ]
    return outputs


def evaluate_along_nms(
    model: nn.Module,
    loader: Iterable[list[dict[str, Any]]],
    dataset_name: str,
    *,
    nms_thresholds: Sequence[float],
    budgets: Sequence[int],
    iou_thresholds: Sequence[float],
    left_out: Sequence[str] = (),
) -> dict[float, dict[str, float]]:
    """Evaluate a model's proposals at several NMS thresholds.

    Args:
        model: see :func:`propose`; it is left in evaluation mode.
        loader: of the whole dataset.
        iou_thresholds: of the recall.
        left_out: names of classes that were not trained, DATASETS.LEFT_OUT.

    Returns:
        NMS threshold -> the metrics of :class:`ProposalRecallEvaluator` without those of classes,
        of :class:`ProposalErrorEvaluator` and of :class:`ScoreEvaluator`.
    """
    model.eval()
    common = {"budgets": budgets, "ground_truth": load_ground_truth(dataset_name)}
    of_recall = {"iou_thresholds": iou_thresholds, "left_out": left_out}
    evaluators = {}
    for threshold in nms_thresholds:
        recall = ProposalRecallEvaluator(dataset_name, **of_recall, **common)
        others = [kind(dataset_name, **common) for kind in (ProposalErrorEvaluator, ScoreEvaluator)]
        evaluators[threshold] = DatasetEvaluators([recall, *others])
    for batched_inputs in loader:
        outputs = propose(model, batched_inputs, nms_thresholds, max(budgets))
        for threshold, evaluator in evaluators.items():
            evaluator.process(batched_inputs, outputs[threshold])
    return {
        threshold: {
            name: value
            for metrics in evaluator.evaluate().values()
            for name, value in metrics.items()
            if name.partition("-")[2] in ("", "seen", "unseen")  # else a class
        }
        for threshold, evaluator in evaluators.items()
    }
