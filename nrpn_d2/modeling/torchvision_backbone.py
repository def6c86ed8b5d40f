"""image -> features: the classification networks of torchvision as Detectron2 backbones.

A network's trunk, what comes before its pooling and classifier, is a sequence of layers. They keep
torchvision's names, so that its weights load: ``features.0.0.weight`` of a file becomes
``backbone.features.0.0.weight``.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn

_HEAD = (nn.AdaptiveAvgPool2d, nn.Linear, nn.Dropout)
# No grid of features at several strides, or only for images of one size
_UNFIT = (torchvision.models.VisionTransformer, torchvision.models.MaxVit)
# Their second classifiers stand in the middle of the trunk, and new weights take half a minute
_TRUNK_ALONE = {"aux_logits": False, "init_weights": False}
_OPTIONS = {"googlenet": _TRUNK_ALONE, "inception_v3": _TRUNK_ALONE}
# Their feature maps are (N, H, W, C)
_CHANNELS_LAST = torchvision.models.SwinTransformer
_HEIGHT, _WIDTH = 288, 480  # of the image with which strides are measured


class LayerShape(NamedTuple):
    """What comes out of a layer."""

    channels: int
    stride: int  # of the image, rounded to a power of two
    # Layers without padding (AlexNet, SqueezeNet, Inception) give maps that are a little too small
    is_exact: bool  # whether the stride is that without rounding


class TorchvisionBackbone(Backbone):
    """The trunk of a torchvision classification network.

    The feature map ``stride<s>`` is what comes out of the last block before the resolution falls
    below 1/s of the image's. Layers that no wanted feature map needs are left out.

    ``freeze_at`` counts blocks: a block is a convolution or a composite module (a residual block,
    an inception block), together with the normalisation, activation and pooling that follow. Four
    blocks are ``features.0`` to ``features.3`` of MobileNetV2, the stem and all of ``layer1`` of
    ResNet-50, conv1_1 to conv2_2 of VGG-16.
    """

    def __init__(
        self,
        *,
        name: str,
        out_features: Sequence[str] = ("stride16",),
        norm: str = "FrozenBN",
        freeze_at: int = 0,
    ):
        """
        Args:
            name: of ``torchvision.models.list_models(module=torchvision.models)``.
            out_features: names of the feature maps to return, such as "stride8".
            norm: "FrozenBN": batch normalisation keeps the statistics, scale and shift of the
                weights that are loaded; "BN": it is trained. Normalisation of other kinds is
                trained in both cases.
            freeze_at: the first ``freeze_at`` blocks are not trained, nor is their normalisation.

        Raises:
            ValueError: for an unknown name, norm or feature map.
        """
        super().__init__()
        net = build_network(name)
        layers, shapes = trunk_layers(net), layer_shapes(net)
        last = {f"stride{shape.stride}": i for i, shape in enumerate(shapes)}
        if not out_features or not set(out_features) <= set(last):
            message = f"MODEL.TORCHVISION.OUT_FEATURES is {list(out_features)}"
            raise ValueError(f"{message}; the feature maps of {name} are {', '.join(last)}")
        if norm not in ("FrozenBN", "BN"):
            raise ValueError(f"MODEL.TORCHVISION.NORM {norm!r} is neither 'FrozenBN' nor 'BN'")
        self._out_features = sorted(out_features, key=last.__getitem__)
        wanted = {feature: shapes[last[feature]] for feature in self._out_features}
        self._out_feature_strides = {f: shape.stride for f, shape in wanted.items()}
        self._out_feature_channels = {f: shape.channels for f, shape in wanted.items()}
        self._channels_last = isinstance(net, _CHANNELS_LAST)
        self._feature_of = {layers[last[feature]][0]: feature for feature in self._out_features}
        self.has_exact_strides = all(shape.is_exact for shape in wanted.values())

        layers = layers[: last[self._out_features[-1]] + 1]
        self._layers = [path for path, _ in layers]
        for path, layer in layers:
            _put(self, path, layer)
        if norm == "FrozenBN":
            FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        self._freeze(freeze_at)

    def _freeze(self, num_blocks: int) -> None:
        block = 0
        for path in self._layers:
            layer = self.get_submodule(path)
            block += isinstance(layer, nn.Conv2d) or any(True for _ in layer.children())
            if block > num_blocks:
                return
            layer.requires_grad_(False)
            _put(self, path, FrozenBatchNorm2d.convert_frozen_batchnorm(layer))

    @property
    def size_divisibility(self) -> int:
        return max(self._out_feature_strides.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) images -> ``{"stride<s>": (N, C, H / s, W / s)}``."""
        outputs = {}
        if x.device.type == "cpu":
            # Depthwise convolutions take half the time there; the numbers are the same
            x = x.contiguous(memory_format=torch.channels_last)
        for path in self._layers:
            x = self.get_submodule(path)(x)
            feature = self._feature_of.get(path)
            if feature is not None:
                # (N, H, W, C) -> (N, C, H, W)
                outputs[feature] = x.permute(0, 3, 1, 2).contiguous() if self._channels_last else x
        return outputs


def build_network(name: str) -> nn.Module:
    """Build a classification network of torchvision with new weights, if its trunk is fit."""
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        known = ", ".join(names)
        raise ValueError(f"MODEL.TORCHVISION.NAME is {name!r}; it must be one of {known}")
    net = torchvision.models.get_model(name, weights=None, **_OPTIONS.get(name, {}))
    if isinstance(net, _UNFIT):
        message = f"MODEL.TORCHVISION.NAME {name!r} has no feature maps at several strides for"
        raise ValueError(f"{message} images of any size; take a CNN or a Swin Transformer")
    return net


def trunk_layers(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the layers of a network that run one after the other, up to its pooling or classifier.

    Returns:
        Names, such as "features.0" or "layer1.2", and modules.
    """
    if hasattr(net, "features"):
        return _flatten("features", net.features)
    layers = []
    for name, child in net.named_children():
        # MNASNet's and ShuffleNet's classifiers come without a pooling module
        if isinstance(child, _HEAD) or name == "classifier":
            break
        layers += _flatten(name, child)
    return layers


def _flatten(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:  # subclasses are blocks
        return [(name, module)]
    parts = [_flatten(f"{name}.{child}", part) for child, part in module.named_children()]
    return [layer for part in parts for layer in part]


@torch.no_grad()
def layer_shapes(net: nn.Module) -> list[LayerShape]:
    """Find what comes out of each layer of a network's trunk; nothing is computed."""
    shapes = []
    with torch.device("meta"):
        x = torch.empty(1, 3, _HEIGHT, _WIDTH)
        for _, layer in trunk_layers(copy.deepcopy(net).to("meta").eval()):
            x = layer(x)
            shape = x.permute(0, 3, 1, 2).shape if isinstance(net, _CHANNELS_LAST) else x.shape
            _, channels, height, width = shape
            stride = 2 ** round(math.log2(_HEIGHT / height))
            is_exact = (height * stride, width * stride) == (_HEIGHT, _WIDTH)
            shapes.append(LayerShape(channels, stride, is_exact))
    return shapes


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    """Make ``module`` a submodule of ``root`` under a dotted name."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root._modules[parent]
    root.add_module(name, module)


@BACKBONE_REGISTRY.register()
def build_torchvision_backbone(cfg, input_shape: ShapeSpec) -> TorchvisionBackbone:
    """Build ``MODEL.TORCHVISION``; ``MODEL.BACKBONE.FREEZE_AT`` counts its frozen blocks."""
    return TorchvisionBackbone(
        name=cfg.MODEL.TORCHVISION.NAME,
        out_features=cfg.MODEL.TORCHVISION.OUT_FEATURES,
        norm=cfg.MODEL.TORCHVISION.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


@BACKBONE_REGISTRY.register()
def build_torchvision_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """Build an FPN over ``MODEL.TORCHVISION``.

    It reads ``MODEL.FPN.IN_FEATURES``, names in ``MODEL.TORCHVISION.OUT_FEATURES``. "stride<2^l>"
    becomes "p<l>", and a pooling of the last map makes one more level. Where layers end without an
    activation, as MobileNetV2's, the values of the first maps are far larger than those of the
    last. ``MODEL.FPN.NORM`` "GN" makes them alike; without it, an RPN may learn nothing.

    Raises:
        ValueError: for a network whose feature maps do not fit over one another.
    """
    bottom_up, name = build_torchvision_backbone(cfg, input_shape), cfg.MODEL.TORCHVISION.NAME
    if not bottom_up.has_exact_strides:
        message = f"MODEL.TORCHVISION.NAME {name!r} has layers without padding, so that its feature"
        raise ValueError(f"{message} maps do not fit over one another; take another for an FPN")
    top_block = LastLevelMaxPool()
    last = bottom_up.output_shape()[cfg.MODEL.FPN.IN_FEATURES[-1]].stride
    top_block.in_feature = f"p{int(math.log2(last))}"
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
