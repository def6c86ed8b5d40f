"""Networks of torchvision as backbones: outputs, gradients, and torchvision's own files."""

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from small_models import TWO_OBJECTS, batch, instances, small_cfg
from test_hard_negative_rpn import TOPK, train_step
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer, set_pixels
from nrpn_d2.modeling.torchvision_backbone import TorchvisionBackbone, build_network, trunk_layers

# What the last layers before each reduction are called by torchvision
LAST_LAYERS = {
    "resnet18": {"stride4": "layer1", "stride8": "layer2", "stride16": "layer3"},
    "mobilenet_v2": {"stride4": "features.3", "stride16": "features.13", "stride32": "features.18"},
    "mobilenet_v3_small": {"stride8": "features.3", "stride16": "features.8"},
    "efficientnet_b0": {"stride8": "features.3", "stride16": "features.5"},
    "vgg11_bn": {"stride8": "features.20", "stride16": "features.27"},
    "densenet121": {"stride4": "features.denseblock1", "stride16": "features.denseblock3"},
    "regnet_x_400mf": {"stride8": "trunk_output.block2", "stride32": "trunk_output.block4"},
    "shufflenet_v2_x0_5": {"stride8": "stage2", "stride32": "conv5"},
    "mnasnet0_5": {"stride8": "layers.9", "stride16": "layers.11"},
    "convnext_tiny": {"stride8": "features.4.0", "stride32": "features.7"},
    "swin_t": {"stride8": "features.3", "stride16": "features.5"},
    "squeezenet1_1": {"stride8": "features.7", "stride16": "features.12"},
    "googlenet": {"stride8": "inception3b", "stride16": "inception4e"},
}


def unlike_new(net):
    """Weights and statistics that show where a normalisation is left out or done twice."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in ((module.running_mean, -0.2), (module.running_var, 0.5)):
                value.copy_(torch.rand(value.shape, generator=generator) + low)
            module.weight.data.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
            module.bias.data.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return net.eval()


@pytest.mark.parametrize("name", LAST_LAYERS)
def test_outputs_are_torchvisions(name):
    net = unlike_new(build_network(name))
    expected = create_feature_extractor(net, {v: k for k, v in LAST_LAYERS[name].items()})
    images = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = expected(images)
        for norm in ("FrozenBN", "BN"):
            backbone = TorchvisionBackbone(name=name, out_features=[*expected], norm=norm)
            missing, _ = backbone.load_state_dict(net.state_dict(), strict=False)
            assert not missing
            outputs = backbone.eval()(images)
            assert outputs.keys() == expected.keys() == backbone.output_shape().keys()
            for feature, output in outputs.items():
                if name == "swin_t":  # (N, H, W, C)
                    expected_output = expected[feature].permute(0, 3, 1, 2)
                else:
                    expected_output = expected[feature]
                torch.testing.assert_close(output, expected_output, rtol=1e-3, atol=1e-4)
                shape = backbone.output_shape()[feature]
                assert output.shape[1] == shape.channels and shape.stride == int(feature[6:])
                if backbone.has_exact_strides:
                    assert output.shape[2:] == (96 // shape.stride, 160 // shape.stride)


def test_every_classification_network_is_known():
    # The names that torchvision lists are those that build; vit_* and maxvit_t are refused
    with pytest.raises(ValueError, match="one of alexnet, .*wide_resnet50_2"):
        TorchvisionBackbone(name="resnet")
    for name in ("vit_b_32", "maxvit_t"):
        with pytest.raises(ValueError, match=f"'{name}' has no feature maps at several strides"):
            build_network(name)


def test_layers_after_the_last_feature_map_are_left_out():
    backbone = TorchvisionBackbone(name="mobilenet_v2", out_features=["stride8", "stride16"])
    assert [name for name, _ in backbone.features.named_children()] == [str(i) for i in range(14)]
    assert backbone.size_divisibility == 16


def test_unknown_feature_map():
    with pytest.raises(
        ValueError, match=r"OUT_FEATURES is \['conv5'\].*stride2, stride4, .*stride32"
    ):
        TorchvisionBackbone(name="resnet18", out_features=["conv5"])


@pytest.mark.parametrize(
    "name, frozen",
    [
        ("mobilenet_v2", ["features.0", "features.1", "features.2", "features.3"]),
        # the stem, three convolutions in layer1 and layer2
        ("resnet18", ["conv1", "bn1", "layer1.0", "layer1.1", "layer2.0"]),
        ("vgg11_bn", [f"features.{i}" for i in range(14)]),
    ],
)
def test_frozen_blocks(name, frozen):
    backbone = TorchvisionBackbone(name=name, norm="BN", freeze_at=4)
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    batch_norms = {n for n, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for path, _ in trunk_layers(build_network(name))[:40]:
        inside = [n for n in trained | batch_norms if n == path or n.startswith(path + ".")]
        has_weights = path in dict(backbone.named_modules()) and any(
            True for _ in backbone.get_submodule(path).parameters()
        )
        assert has_weights is False or bool(inside) == (path not in frozen), path
    assert any(isinstance(m, FrozenBatchNorm2d) for m in backbone.modules())


def test_frozen_normalisation_is_not_trained():
    backbone = TorchvisionBackbone(name="mobilenet_v2")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    backbone.train()(torch.rand(1, 3, 64, 64))["stride16"].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def animals_cfg(**overrides):
    """MobileNetV2 with stride 16, or with an FPN."""
    return small_cfg(
        "vgg",
        "ProposalNetwork",
        **{
            "MODEL__BACKBONE__NAME": "build_torchvision_backbone",
            "MODEL__RPN__IN_FEATURES": ["stride16"],
            **TOPK,
            **overrides,
        },
    )


FPN = {
    "MODEL__BACKBONE__NAME": "build_torchvision_fpn_backbone",
    "MODEL__TORCHVISION__OUT_FEATURES": ["stride8", "stride16"],
    "MODEL__FPN__IN_FEATURES": ["stride8", "stride16"],
    "MODEL__FPN__OUT_CHANNELS": 16,
    "MODEL__RPN__IN_FEATURES": ["p3", "p4", "p5"],
    "MODEL__ANCHOR_GENERATOR__SIZES": [[16], [32], [64]],
}


@pytest.mark.parametrize("overrides", [{}, FPN], ids=["single level", "FPN"])
def test_trains(overrides):
    model = build_model(animals_cfg(**overrides))
    losses, _ = train_step(model, batch(instances(TWO_OBJECTS), instances([])))
    assert all(loss.isfinite() for loss in losses.values())
    gradients = [p.grad for p in model.proposal_generator.negative_rpn.parameters()]
    assert all(g is not None for g in gradients)


def test_fpn_refuses_maps_that_do_not_fit():
    with pytest.raises(ValueError, match="'alexnet' has layers without padding"):
        build_model(animals_cfg(**{**FPN, "MODEL__TORCHVISION__NAME": "alexnet"}))


@pytest.mark.parametrize("overrides", [{}, FPN], ids=["single level", "FPN"])
@pytest.mark.parametrize("checkpointer", [NRPNCheckpointer, DetectionCheckpointer])
def test_torchvisions_file(checkpointer, overrides, tmp_path):
    net = unlike_new(torchvision.models.mobilenet_v2(num_classes=7))
    torch.save(net.state_dict(), tmp_path / "mobilenet.pth")
    model = build_model(animals_cfg(**overrides))
    checkpointer(model).load(str(tmp_path / "mobilenet.pth"))
    own = {"RPN": model.backbone, "nRPN": model.proposal_generator.negative_rpn.backbone}
    for backbone in own.values():
        trunk = getattr(backbone, "bottom_up", backbone).state_dict()
        assert len(trunk) > 100
        for name, value in trunk.items():
            assert torch.equal(value, net.state_dict()[name]), name


IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
HALVES = [127.5] * 3, [127.5] * 3


@pytest.mark.parametrize(
    "weights, pixels",
    [
        ("torchvision://mobilenet_v2", IMAGENET),
        ("torchvision://googlenet", HALVES),  # transform_input: (x - 0.5) / 0.5
        ("mobilenet_v2-b0353104.pth", IMAGENET),  # IMAGENET1K_V1 as torchvision calls its file
        ("mobilenet_v2.pth", None),  # anybody's
    ],
)
def test_pixels(weights, pixels, tmp_path):
    if "://" not in weights:
        torch.save(torchvision.models.mobilenet_v2().state_dict(), tmp_path / weights)
        weights = str(tmp_path / weights)
    cfg = animals_cfg(MODEL__WEIGHTS=weights)
    before = cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    set_pixels(cfg)
    expected = ("RGB", *pixels) if pixels else before
    assert (cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == expected


def test_transformed_input_is_those_pixels():
    net = torchvision.models.googlenet(aux_logits=False, init_weights=False, transform_input=True)
    image = torch.rand(1, 3, 4, 4) * 255
    normalised, halves = (
        (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        for mean, std in (IMAGENET, HALVES)
    )
    torch.testing.assert_close(net._transform_input(normalised), halves, rtol=0, atol=1e-4)


def test_another_networks_file(tmp_path):
    torch.save(torchvision.models.mobilenet_v2(width_mult=0.5).state_dict(), tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"(?s)another network .*features.0.0.weight: \(16, 3, 3"):
        NRPNCheckpointer(build_model(animals_cfg())).load(str(tmp_path / "half.pth"))


def test_own_checkpoint_comes_back(tmp_path):
    saved, loaded = build_model(animals_cfg()), build_model(animals_cfg())
    NRPNCheckpointer(saved, str(tmp_path)).save("model_final")
    NRPNCheckpointer(loaded).load(str(tmp_path / "model_final.pth"))
    for name, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
