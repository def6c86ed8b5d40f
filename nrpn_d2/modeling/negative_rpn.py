"""The nRPN: a second network with the RPN's structure that learns what the RPN gets wrong.

Shapes: N images, A anchors per cell, (Hi, Wi) the size of feature map i, R anchors in all.
"""

import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, cat
from detectron2.modeling import build_anchor_generator, build_backbone
from detectron2.structures import ImageList
from torch import nn


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

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """L feature maps (N, C, Hi, Wi) -> (N, R)."""
        # (N, A, Hi, Wi) -> (N, Hi, Wi, A) -> (N, Hi*Wi*A), the order of Detectron2's anchors
        logits = [self.objectness_logits(self.conv(x)).permute(0, 2, 3, 1) for x in features]
        return cat([x.flatten(1) for x in logits], dim=1)


class NegativeRPN(nn.Module):
    """Gives each anchor the logit of being a false positive of the RPN.

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
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        in_features = cfg.MODEL.RPN.IN_FEATURES
        shapes = [input_shape[f] for f in in_features]
        shares = cfg.MODEL.NRPN.SHARE_FEATURES
        return {
            "in_features": in_features,
            "head": ScoreHead(
                in_channels=shapes[0].channels,
                num_anchors=build_anchor_generator(cfg, shapes).num_anchors[0],
            ),
            "backbone": None if shares else second_backbone(cfg, input_shape),
            "stop_gradient": cfg.MODEL.NRPN.STOP_GRADIENT,
        }

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        strip_old_suffix(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, images: ImageList, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            images: N images, as the RPN's backbone gets them.
            features: the RPN's feature maps by name.

        Returns:
            (N, R) logits.
        """
        if self.backbone is not None:
            features = self.backbone(images.tensor)
        elif self.stop_gradient:
            features = {name: x.detach() for name, x in features.items()}
        return self.head([features[f] for f in self.in_features])

    def zero(self) -> torch.Tensor:
        """A zero that depends on every trainable parameter.

        Data-parallel training must see a gradient for each parameter in each iteration: also in the
        warm-up, and also for layers of the backbone whose feature maps are not read.
        """
        return sum(0.0 * p.sum() for p in self.parameters() if p.requires_grad)


def strip_old_suffix(state_dict: dict[str, torch.Tensor], prefix: str) -> None:
    """Give checkpoints of version 0.1 the names of parameters, in place.

    There the parameters of the nRPN's own backbone had names that ended with ".nrpn".
    """
    suffix = ".nrpn"
    for name in [k for k in state_dict if k.startswith(prefix) and k.endswith(suffix)]:
        state_dict[name.removesuffix(suffix)] = state_dict.pop(name)


def second_backbone(cfg, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Another backbone of the config, with the RPN's feature maps.

    Raises:
        ValueError: if the RPN's backbone is not the one that the config describes.
    """
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
