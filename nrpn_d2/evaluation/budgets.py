"""The detections of one model at several numbers of proposals, from one forward pass."""

from contextlib import contextmanager

import torch
from detectron2.modeling import GeneralizedRCNN, ProposalNetwork
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def with_budgets(model, budgets):
    """
    Args:
        model (nn.Module): GeneralizedRCNN or ProposalNetwork, possibly in DistributedDataParallel.
        budgets (Sequence[int]): numbers of proposals.

    Returns:
        BudgetedModel: for ``inference_on_dataset`` with the evaluators of this package.
    """
    return BudgetedModel(
        model.module if isinstance(model, DistributedDataParallel) else model, budgets
    )


class BudgetedModel(nn.Module):
    """
    Runs a model once with the largest budget; the smaller ones reuse what its box head predicted.

    A budget of K gives what the model gives with ``MODEL.RPN.POST_NMS_TOPK_TEST: K``: the RPN sorts
    its proposals, so the K best are the first K of more, and the box head looks at each on its own.
    Only score threshold, NMS and top-k of the detections are done again; ROI heads without a single
    box predictor (a cascade) are run again, on the same features. In evaluation, ``forward`` gives
    for each image:

    * "proposals": the proposals of the largest budget, best first, in the original image's pixels;
    * "instances": the detections of the largest budget (GeneralizedRCNN only);
    * "instances_at": {budget: detections} (GeneralizedRCNN only).
    """

    def __init__(self, model, budgets):
        """
        Args: see :func:`with_budgets`.

        Raises:
            ValueError: for a budget below 1.
            TypeError: for another model.
        """
        super().__init__()
        if not budgets or min(budgets) < 1:
            raise ValueError(f"budgets must be positive numbers of proposals, got {list(budgets)}")
        if not isinstance(model, (GeneralizedRCNN, ProposalNetwork)):
            raise TypeError(
                f"budgets need a GeneralizedRCNN or ProposalNetwork, got {type(model).__name__}"
            )
        self.model = model
        self.budgets = sorted(set(budgets))
        self.train(model.training)

    def forward(self, batched_inputs):
        if self.training:
            return self.model(batched_inputs)
        with _most_proposals(self.model.proposal_generator, self.budgets[-1]):
            if isinstance(self.model, ProposalNetwork):
                return self.model(batched_inputs)
            return self._detect(batched_inputs)

    def _detect(self, batched_inputs):
        if self.model.proposal_generator is None:  # precomputed: best first in Detectron2's loader
            most = self.budgets[-1]
            batched_inputs = [{**x, "proposals": x["proposals"][:most]} for x in batched_inputs]
        heads, seen = self.model.roi_heads, {}
        predictor = getattr(heads, "box_predictor", None)
        predictor = predictor if isinstance(predictor, FastRCNNOutputLayers) else None
        with _last_call(heads, seen, "heads"), _last_call(predictor, seen, "predictor"):
            outputs = self.model(batched_inputs)
        (images, features, proposals, *_), _ = seen["heads"]

        def detect(best):
            if predictor is None:
                return heads(images, features, best)[0]
            return predictor.inference(_of_best(best, seen["predictor"][1], proposals), best)[0]

        for output, image, found in zip(outputs, batched_inputs, proposals):
            output["proposals"] = _in_original_pixels(found, image)
            output["instances_at"] = {}
        for budget in self.budgets[:-1]:
            detections = detect([found[:budget] for found in proposals])
            for output, image, found in zip(outputs, batched_inputs, detections):
                output["instances_at"][budget] = _in_original_pixels(found, image)
        for output in outputs:
            output["instances_at"][self.budgets[-1]] = output["instances"]
        return outputs


def _of_best(best, predictions, proposals):
    """Of the box predictor's tensors (all proposals, ...), the rows of each image's ``best``."""
    counts = [len(found) for found in proposals]
    return tuple(
        torch.cat([rows[: len(kept)] for rows, kept in zip(prediction.split(counts), best)])
        for prediction in predictions
    )


def _in_original_pixels(instances, image):
    """The instances in the size that the input dict asks for; the argument stays as it is."""
    fields = {
        name: value.clone() if isinstance(value, Boxes) else value
        for name, value in instances.get_fields().items()
    }
    height, width = instances.image_size
    return detector_postprocess(
        Instances(instances.image_size, **fields),
        image.get("height", height),
        image.get("width", width),
    )


@contextmanager
def _most_proposals(proposal_generator, budget):
    """The RPN keeps ``budget`` proposals in evaluation, whatever its configuration says."""
    limits = getattr(proposal_generator, "post_nms_topk", None)
    if limits is None:  # precomputed proposals
        yield
        return
    configured = limits[False]
    limits[False] = budget
    try:
        yield
    finally:
        limits[False] = configured


@contextmanager
def _last_call(module, seen, name):
    """Put what ``module`` gets and returns into ``seen[name]``."""
    if module is None:
        yield
        return
    handle = module.register_forward_hook(lambda _, *call: seen.update({name: call}))
    try:
        yield
    finally:
        handle.remove()
