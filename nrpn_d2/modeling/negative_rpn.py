"""The nRPN: a second network with the RPN's structure that learns what the RPN gets wrong.

Shapes: N images, A anchors per cell, (Hi, Wi) the size of feature map i, R anchors in all.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, cat
from detectron2.modeling import build_anchor_generator, build_backbone
from detectron2.structures import ImageList
from torch import Tensor, nn

from ..config_checks import registered
from .losses import bce
from .mining import MINER_REGISTRY, false_positives, hard_negatives
from .samplers import NRPN, pick


class ScoreHead(nn.Module):
    """The two convolutions of the score map (paper, Sec. 3): an RPN head without box regression.

    Shared by all feature maps, like Detectron2's ``StandardRPNHead``.
    """

    def __init__(self, *, in_channels: int, num_anchors: int):
        super().__init__()
        self.conv = Conv2d(in_channels, in_channels, 3, padding=1, activation=nn.ReLU())
        self.objectness_logits = nn.Conv2d(in_channels, num_anchors, 1)
        for layer in (self.conv, self.objectness_logits):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, 0)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return (N, R) logits of L feature maps (N, C, Hi, Wi)."""
        # (N, A, Hi, Wi) -> (N, Hi, Wi, A) -> (N, Hi*Wi*A), the order of Detectron2's anchors
        logits = [self.objectness_logits(self.conv(x)).permute(0, 2, 3, 1) for x in features]
        return cat([x.flatten(1) for x in logits], dim=1)


class NegativeRPN(nn.Module):
    """Give each anchor the logit of being a false positive of the RPN.

    It runs in training only. With a backbone of its own it shares no weight with the RPN (paper,
    Sec. 2.1); without one it reads the RPN's features.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        head: nn.Module,
        backbone: nn.Module | None = None,
        stop_gradient: bool = True,
    ):
        """
        Args:
            in_features: names of the feature maps to read.
            head: feature maps -> (N, R) logits.
            backbone: images -> feature maps, or None to read the RPN's.
            stop_gradient: whether the nRPN's loss stays out of the RPN's features.
        """
        super().__init__()
        self.in_features = in_features
        self.backbone = backbone
        self.head = head
        self.stop_gradient = stop_gradient
        outputs = backbone.output_shape() if backbone is not None else {}
        self.has_unread_layers = not set(outputs) <= set(in_features)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        in_features = cfg.MODEL.RPN.IN_FEATURES
        shapes = [input_shape[f] for f in in_features]
        shares = cfg.MODEL.NRPN.SHARE_FEATURES
        num_anchors = build_anchor_generator(cfg, shapes).num_anchors[0]
        return {
            "in_features": in_features,
            "head": ScoreHead(in_channels=shapes[0].channels, num_anchors=num_anchors),
            "backbone": None if shares else second_backbone(cfg, input_shape),
            "stop_gradient": cfg.MODEL.NRPN.STOP_GRADIENT,
        }

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        strip_old_suffix(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, images: ImageList, features: dict[str, Tensor]) -> Tensor:
        """Return the logits (N, R) of all anchors; the arguments are the RPN's."""
        if self.backbone is not None:
            features = self.backbone(images.tensor)
        elif self.stop_gradient:
            features = {name: x.detach() for name, x in features.items()}
        logits = self.head([features[f] for f in self.in_features])
        return logits + self.zero() if self.has_unread_layers else logits

    def zero(self) -> Tensor:
        """Return a zero that depends on every trainable parameter.

        Data-parallel training must see a gradient for each parameter in each iteration: also in the
        warm-up, and also for layers of the backbone whose feature maps are not read.
        """
        return sum(0.0 * p.sum() for p in self.parameters() if p.requires_grad)


def nrpn_loss(
    logits: Tensor,
    labels: Tensor,
    is_fp: Tensor,
    sampler: NRPN,
    loss_weight: float = 1.0,
    num_false_alarms: int = 0,
) -> Tensor:
    """Return the nRPN's loss: binary cross-entropy on a mini-batch, divided by its size.

    The mini-batch is filled with false positives, then objects, on which the nRPN has to stay
    silent, then random background.

    Args:
        logits: (N, R), of the nRPN.
        labels: (N, R), the matcher's.
        is_fp: (N, R) bool, the RPN's false positives.
        sampler: its "hard negatives" are objects.
        num_false_alarms: of the background anchors that are no false positives, this many in each
            image, those that the nRPN scores best, join the mini-batch as negatives: its own
            mistakes. Without them it goes on proposing what the RPN has long learned, since that
            looks as it did when it was a false positive and hardly ever is sampled at random.
    """
    # The RPN's false positives are the nRPN's objects, its objects are background
    nrpn_labels = labels.clamp(max=0).masked_fill(is_fp, 1)
    objects = torch.rand(labels.shape, device=labels.device)
    objects = objects.masked_fill(labels != 1, -float("inf"))
    sampled = sampler(nrpn_labels, None, None, objects).labels
    if num_false_alarms > 0:
        alarms = pick(logits.detach().float(), nrpn_labels == 0, None, num_false_alarms)
        sampled = sampled.masked_fill(alarms, 0)
    chosen = torch.nonzero(sampled.flatten() >= 0)[:, 0]
    loss = bce(logits.flatten()[chosen], sampled.flatten()[chosen]).sum()
    return loss * (loss_weight / (sampler.batch_size_per_image * len(labels)))


def miner(cfg: CfgNode) -> Callable[..., Tensor]:
    """Return the function ``(logits, labels, ious) -> (N, R) bool`` of ``MODEL.NRPN.FP_*``."""
    nrpn, select = cfg.MODEL.NRPN, registered(cfg, "MODEL.NRPN.FP_SELECT", MINER_REGISTRY)
    limits = {"score": nrpn.FP_SCORE, "iou": nrpn.FP_IOU, "topk": nrpn.FP_TOPK}
    return partial(false_positives, select=select, **limits)


def nrpn_arguments(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
    """Return what ``HardNegativeRPN`` needs for an nRPN, from ``MODEL.NRPN``."""
    nrpn = cfg.MODEL.NRPN
    suppression = {"pre_nms_topk": nrpn.PRE_NMS_TOPK, "nms_thresh": nrpn.NMS_THRESH}
    return {
        "negative_rpn": NegativeRPN(cfg, input_shape),
        "nrpn_sampler": NRPN(
            batch_size_per_image=nrpn.BATCH_SIZE_PER_IMAGE,
            positive_fraction=nrpn.POSITIVE_FRACTION,
            hard_fraction=nrpn.OBJECT_FRACTION,
        ),
        "propose_hard_negatives": partial(hard_negatives, **suppression),
        "warmup_iters": nrpn.WARMUP_ITERS,
        "nrpn_loss_weight": nrpn.LOSS_WEIGHT,
        "fp_by": nrpn.FP_BY,
        "fp_iou": nrpn.FP_IOU,
        "num_candidates": nrpn.PRE_NMS_TOPK,
        "num_false_alarms": nrpn.FALSE_ALARMS,
    }


def strip_old_suffix(state_dict: dict[str, Tensor], prefix: str) -> None:
    """Give checkpoints of version 0.1 the names of parameters, in place.

    There the parameters of the nRPN's own backbone had names that ended with ".nrpn".
    """
    suffix = ".nrpn"
    for name in [k for k in state_dict if k.startswith(prefix) and k.endswith(suffix)]:
        state_dict[name.removesuffix(suffix)] = state_dict.pop(name)


def second_backbone(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build another backbone of the config; the RPN's has to be the one that it describes."""
    backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    for name in cfg.MODEL.RPN.IN_FEATURES:
        wanted, built = input_shape[name], shapes.get(name)
        if built is None or (built.channels, built.stride) != (wanted.channels, wanted.stride):
            raise ValueError(
                f"MODEL.NRPN needs a second backbone like the RPN's, with {name} {wanted}, but "
                f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME!r} builds one with {built}; correct "
                "MODEL.BACKBONE, or set MODEL.NRPN.SHARE_FEATURES True to do without"
            )
    return backbone
