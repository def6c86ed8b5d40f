"""image -> features: VGG as a Detectron2 backbone, and its fc6/fc7 as a box head.

VGG-16 without its fifth pooling, so that the last feature map has stride 16 (Faster R-CNN, Sec. 3).
Layers carry the names of the Caffe model: conv1_1 ... conv5_3, fc6, fc7.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, ROI_BOX_HEAD_REGISTRY, Backbone
from torch import Tensor, nn


class VGG(Backbone):
    """The convolutional stages of VGG.

    A 2x2 max-pooling stands between two stages, so ``conv<i>`` has stride ``2 ** (i - 1)``.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        widths: Sequence[int],
        norm: str = "",
        in_channels: int = 3,
        out_features: Sequence[str] = ("conv5",),
        freeze_at: int = 0,
    ):
        """
        Args:
            depths: number of 3x3 convolutions of each stage.
            widths: number of channels of each stage.
            norm: normalisation after each convolution, a name of ``detectron2.layers.get_norm``.
                Without one the convolutions have biases.
            in_channels: channels of the image.
            out_features: names of the stages to return, "conv1" ... "conv<len(depths)>".
            freeze_at: the first ``freeze_at`` stages are not trained (Faster R-CNN: 2).

        Raises:
            ValueError: for a name in ``out_features`` that no stage has.
        """
        super().__init__()
        self._stages: dict[str, list[str]] = {}
        self._out_features = list(out_features)
        self._out_feature_strides: dict[str, int] = {}
        self._out_feature_channels: dict[str, int] = {}
        conv3x3 = partial(Conv2d, kernel_size=3, padding=1, bias=norm == "", activation=F.relu)
        for i, (depth, width) in enumerate(zip(depths, widths), start=1):
            stage = f"conv{i}"
            self._stages[stage] = [f"{stage}_{j}" for j in range(1, depth + 1)]
            for name in self._stages[stage]:
                conv = conv3x3(in_channels, width, norm=get_norm(norm, width))
                weight_init.c2_msra_fill(conv)
                if i <= freeze_at:
                    conv.requires_grad_(False)
                    FrozenBatchNorm2d.convert_frozen_batchnorm(conv)
                self.add_module(name, conv)
                in_channels = width
            self._out_feature_strides[stage] = 2 ** (i - 1)
            self._out_feature_channels[stage] = width
        unknown = set(self._out_features) - set(self._stages)
        if unknown:
            message = f"MODEL.VGG.OUT_FEATURES names {sorted(unknown)}"
            raise ValueError(f"{message}; the stages are {list(self._stages)}")

    @property
    def size_divisibility(self) -> int:
        return max(self._out_feature_strides[f] for f in self._out_features)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``{stage: (N, width, H / stride, W / stride)}`` of (N, C, H, W) images."""
        outputs = {}
        for stage, convs in self._stages.items():
            if stage != "conv1":
                x = F.max_pool2d(x, kernel_size=2, stride=2)
            for name in convs:
                x = getattr(self, name)(x)
            if stage in self._out_features:
                outputs[stage] = x
        return outputs


@BACKBONE_REGISTRY.register()
def build_vgg_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> VGG:
    """Build a VGG from ``MODEL.VGG``; ``MODEL.BACKBONE.FREEZE_AT`` counts its frozen stages."""
    return VGG(
        depths=cfg.MODEL.VGG.DEPTHS,
        widths=cfg.MODEL.VGG.WIDTHS,
        norm=cfg.MODEL.VGG.NORM,
        in_channels=input_shape.channels,
        out_features=cfg.MODEL.VGG.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


@ROI_BOX_HEAD_REGISTRY.register()
class VGGBoxHead(nn.Module):
    """fc6 and fc7, each with ReLU and dropout, on pooled regions (Fast R-CNN)."""

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, fc_dim: int, dropout: float):
        super().__init__()
        size = input_shape.channels * input_shape.height * input_shape.width
        self.fc6 = nn.Linear(size, fc_dim)
        self.fc7 = nn.Linear(fc_dim, fc_dim)
        self.dropout = dropout
        for fc in (self.fc6, self.fc7):
            weight_init.c2_xavier_fill(fc)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        vgg = cfg.MODEL.VGG
        return {"input_shape": input_shape, "fc_dim": vgg.FC_DIM, "dropout": vgg.DROPOUT}

    @property
    def output_shape(self) -> ShapeSpec:
        return ShapeSpec(channels=self.fc7.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Return (M, fc_dim) features of (M, C, 7, 7) pooled regions."""
        x = x.flatten(1)
        for fc in (self.fc6, self.fc7):
            x = F.dropout(F.relu(fc(x)), self.dropout, self.training)
        return x
