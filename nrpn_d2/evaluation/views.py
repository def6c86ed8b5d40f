"""What the networks make of one image: everything that pictures of the RPN and nRPN show.

Shapes: R anchors, G objects, K proposals, P anchors that are labelled objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes
from torch import nn

from ..data import reading
from ..modeling.hard_negative_rpn import HardNegativeRPN
from ..modeling.ignored import ignored_boxes
from ..modeling.proposal_ious import ProposalIoUs
from ..utils.boxes import box_iou, covered_fraction
from ..utils.seeding import undisturbed
from .proposal_errors import CROWD_FRACTION, classify_proposals


@dataclass(frozen=True)
class View:
    """One image; boxes are (..., 4) in its pixels, scores probabilities, lists are best first."""

    file_name: str
    objects: np.ndarray  # (G, 4)
    ignored: np.ndarray  # (..., 4), objects to ignore
    anchors: np.ndarray  # (R, 4)
    levels: np.ndarray  # (R,) the feature map of each
    scores: np.ndarray  # (R,) the RPN's objectness
    labels: np.ndarray  # (R,) the matcher's
    ious: np.ndarray  # (R,) with the object overlapped most
    is_fp: np.ndarray  # (R,) bool, what the miner calls false positives
    hard: np.ndarray  # (R,) bool, the hard negatives that the sampler would choose
    targets: np.ndarray  # (P,) the objectness that each object's anchor is trained towards
    target_ious: np.ndarray  # (P,) the IoUs that the loss is given for that ...
    iou_of: str  # ... those of the "anchor" or its "proposal"
    proposals: np.ndarray  # (K, 4)
    proposal_scores: np.ndarray  # (K,)
    proposal_ious: np.ndarray  # (K,) with the object overlapped most
    kinds: np.ndarray  # (K,) see classify_proposals
    nrpn_proposals: np.ndarray | None = None  # (..., 4); None: there is no nRPN
    nrpn_scores: np.ndarray | None = None


def view_image(model: nn.Module, inputs: dict[str, Any], with_nrpn: bool = True) -> View:
    """Look at an image as a training step does, without learning; the model stays as it is.

    Args:
        model: a GeneralizedRCNN or ProposalNetwork whose RPN is a ``HardNegativeRPN``.
        inputs: of the model, with "instances", see :func:`nrpn_d2.data.mapper.annotated_mapper`.
        with_nrpn: False in the warm-up, when it has learned nothing.
    """
    rpn: HardNegativeRPN = model.proposal_generator
    with undisturbed(model):
        gt = inputs["instances"].to(model.device)
        # A ProposalNetwork has all that this method needs, but not the method
        images = GeneralizedRCNN.preprocess_image(model, [inputs])
        features = model.backbone(images.tensor)
        maps = [features[f] for f in rpn.in_features]
        anchors = rpn.anchor_generator(maps)
        level_logits, deltas = rpn.predict(maps)
        (proposals,) = rpn.predict_proposals(anchors, level_logits, deltas, images.image_sizes)
        logits = torch.cat(level_logits, dim=1).float()
        labels, ious, _ = rpn.label(anchors, [gt])
        proposal_ious = ProposalIoUs(anchors, deltas, rpn.box2box_transform, [gt])
        nrpn, hardness = {}, torch.full_like(logits, -float("inf"))
        if rpn.negative_rpn is not None and with_nrpn:
            nrpn_logits = rpn.negative_rpn(images, features)
            hardness = rpn.propose(nrpn_logits, labels, anchors, proposal_ious)
            everywhere = torch.zeros_like(labels)
            kept = rpn.propose_hard_negatives(nrpn_logits, everywhere, Boxes.cat(anchors).tensor)[0]
            order = kept.argsort(descending=True)[: int((kept > -float("inf")).sum())]
            nrpn["boxes"] = Boxes.cat(anchors)[order].tensor
            nrpn["scores"] = kept[order].sigmoid()
        is_fp = rpn.mine(logits, labels, ious, proposal_ious)
        hard = rpn.negative_sampler(labels, logits, ious, hardness).hard
        positive = torch.nonzero(labels[0] == 1)[:, 0]
        wanted = proposal_ious.at(positive) if rpn.iou_of == "proposal" else ious[0, positive]
        targets = objectness_targets(rpn.objectness_loss, wanted)

    height, width = gt.image_size
    scale = inputs.get("width", width) / width, inputs.get("height", height) / height

    def boxes(tensor: torch.Tensor) -> np.ndarray:
        return tensor.cpu().numpy().astype(np.float64) * [*scale, *scale]

    def values(tensor: torch.Tensor) -> np.ndarray:
        return tensor.cpu().numpy()

    objects, ignored = boxes(gt.gt_boxes.tensor), boxes(ignored_boxes(gt).tensor)
    proposed = boxes(proposals.proposal_boxes.tensor)
    overlaps = box_iou(np.concatenate([objects, ignored])[:, None], proposed)
    is_ignored = np.arange(len(overlaps)) >= len(objects)
    on_ignored = (covered_fraction(proposed, ignored[:, None]) >= CROWD_FRACTION).any(axis=0)
    return View(
        file_name=inputs["file_name"],
        objects=objects,
        ignored=ignored,
        anchors=boxes(Boxes.cat(anchors).tensor),
        levels=np.repeat(range(len(anchors)), [len(of_level) for of_level in anchors]),
        scores=values(logits[0].sigmoid()),
        labels=values(labels[0]),
        ious=values(ious[0]),
        is_fp=values(is_fp[0]),
        hard=values(hard[0]),
        targets=values(targets),
        target_ious=values(wanted),
        iou_of=rpn.iou_of,
        proposals=proposed,
        proposal_scores=values(proposals.objectness_logits.float().sigmoid()),
        proposal_ious=overlaps[: len(objects)].max(axis=0, initial=0),
        kinds=classify_proposals(overlaps, is_ignored, on_ignored),
        nrpn_proposals=boxes(nrpn["boxes"]) if nrpn else None,
        nrpn_scores=values(nrpn["scores"]) if nrpn else None,
    )


def objectness_targets(loss: Callable[..., torch.Tensor], ious: torch.Tensor) -> torch.Tensor:
    """Return the objectness (P,) that objects' anchors with IoUs (P,) are trained towards.

    It is where any loss of ``OBJECTNESS_LOSS_REGISTRY`` is smallest; the smallest such,
    where it stops to push (the overlap loss "clamped").
    """
    p = torch.linspace(0, 1, 4001, device=ious.device)
    logits = p.logit(eps=1e-6).expand(len(ious), -1)
    ones, ious = torch.ones_like(logits).long(), ious[:, None].expand_as(logits)
    losses = loss(logits.flatten(), ones.flatten(), ious.flatten()).view_as(logits)
    return p[losses.argmin(dim=1)] if len(losses) else p[:0]


def choose_images(records: Sequence[dict[str, Any]], num: int) -> list[int]:
    """Return the numbers of at most ``num`` records with objects to learn, evenly spread."""

    def has_object(record: dict[str, Any]) -> bool:
        return not all(map(reading.is_ignored, record.get("annotations", ())))

    with_objects = [n for n, record in enumerate(records) if has_object(record)]
    return [with_objects[place] for place in evenly_spread(len(with_objects), num)]


def evenly_spread(count: int, limit: int) -> np.ndarray:
    """Return at most ``limit`` of the numbers below ``count``, with both ends."""
    return np.linspace(0, max(count - 1, 0), min(count, limit)).astype(int)
