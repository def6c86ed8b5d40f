"""The detections of one model at several numbers of proposals, from one forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN, ProposalNetwork
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def with_budgets(model: nn.Module, budgets: Sequence[int]) -> "BudgetedModel":
    """Wrap a model, also one in DistributedDataParallel; see :class:`BudgetedModel`."""
    model = model.module if isinstance(model, DistributedDataParallel) else model
    return BudgetedModel(model, budgets)


class BudgetedModel(nn.Module):
    """Run a model once for the number of proposals that it is configured for and for all budgets.

    A budget of K gives what the model gives with ``MODEL.RPN.POST_NMS_TOPK_TEST: K``, also where K
    is more than the configured number: the RPN sorts its proposals, so the K best are the first K
    of more, and the box head looks at each on its own. Only score threshold, NMS and top-k of the
    detections are done again; ROI heads without a single box predictor (a cascade) are run again,
    on the same features. In evaluation, ``forward`` gives for each image:

    * "proposals": those of the model as it is configured, best first, in the original image's
      pixels;
    * "most_proposals": the same and, up to the largest budget, those that follow;
    * "instances": the detections of the model as it is configured (GeneralizedRCNN only);
    * "instances_at": {budget: detections} (GeneralizedRCNN only), perhaps without masks.
    """

    def __init__(self, model: nn.Module, budgets: Sequence[int]):
        super().__init__()
        if not budgets or min(budgets) < 1:
            raise ValueError(f"budgets must be positive numbers of proposals, got {list(budgets)}")
        if not isinstance(model, (GeneralizedRCNN, ProposalNetwork)):
            name = type(model).__name__
            raise TypeError(f"budgets need a GeneralizedRCNN or ProposalNetwork, got {name}")
        self.model = model
        self.budgets = sorted(set(budgets))
        self.train(model.training)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        if self.training:
            return self.model(batched_inputs)
        with _at_least(self.budgets[-1], self.model.proposal_generator) as configured:
            if isinstance(self.model, GeneralizedRCNN):
                return self._detect(batched_inputs, configured)
            most = [output["proposals"] for output in self.model(batched_inputs)]
        return [{"proposals": x[:configured], "most_proposals": x} for x in most]

    def _detect(self, inputs: list[dict[str, Any]], configured: int | None) -> list[dict[str, Any]]:
        heads, seen = self.model.roi_heads, {}
        predictor = getattr(heads, "box_predictor", heads)  # any other module, if there is none
        with _last_call(heads, seen, "heads"), _last_call(predictor, seen, "predictor"):
            outputs = self.model(inputs)
        (images, features, proposals, *_), _ = seen["heads"]
        counts = [len(of_image) for of_image in proposals]
        in_all = [output["instances"] for output in outputs]

        def detect(number: int | None, boxes_only: bool) -> list[Instances]:
            """Return the detections in the best ``number`` proposals of each image."""
            if number is None or number >= max(counts):
                return in_all
            best = [of_image[:number] for of_image in proposals]
            if not isinstance(predictor, FastRCNNOutputLayers):
                detections = heads(images, features, best)[0]
            else:
                by_image = [prediction.split(counts) for prediction in seen["predictor"][1]]
                predictions = tuple(torch.cat([x[:number] for x in rows]) for rows in by_image)
                detections = predictor.inference(predictions, best)[0]
                if not boxes_only and hasattr(heads, "forward_with_given_boxes"):
                    detections = heads.forward_with_given_boxes(features, detections)
            return [_in_original_pixels(*pair) for pair in zip(detections, inputs)]

        own = detect(configured, boxes_only=False)
        at = {k: own if k == configured else detect(k, boxes_only=True) for k in self.budgets}
        for n, (output, image) in enumerate(zip(outputs, inputs)):
            output["proposals"] = _in_original_pixels(proposals[n][:configured], image)
            output["most_proposals"] = _in_original_pixels(proposals[n], image)
            output["instances"] = own[n]
            output["instances_at"] = {k: detections[n] for k, detections in at.items()}
        return outputs


def _in_original_pixels(instances: Instances, image: dict[str, Any]) -> Instances:
    """Return the instances in the size that the input dict asks for; the argument stays."""
    fields = instances.get_fields()
    fields = {k: v.clone() if isinstance(v, Boxes) else v for k, v in fields.items()}
    copied, (height, width) = Instances(instances.image_size, **fields), instances.image_size
    return detector_postprocess(copied, image.get("height", height), image.get("width", width))


@contextmanager
def _at_least(budget: int, proposal_generator: nn.Module | None) -> Iterator[int | None]:
    """Let the RPN keep ``budget`` proposals in evaluation if it is configured for fewer.

    Yields:
        the configured number; None where proposals are read from a file: all that are given.
    """
    limits = getattr(proposal_generator, "post_nms_topk", None)
    if limits is None:
        yield None
        return
    configured = limits[False]
    limits[False] = max(configured, budget)
    try:
        yield configured
    finally:
        limits[False] = configured


def _last_call(module: nn.Module, seen: dict[str, Any], name: str) -> AbstractContextManager:
    """Put what ``module`` gets and returns, in the context, into ``seen[name]``."""
    return module.register_forward_hook(lambda _, *call: seen.update({name: call}))
