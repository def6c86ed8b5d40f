"""The VGG backbone and its box head."""

import pytest
import torch
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from small_models import small_cfg

from nrpn_d2.modeling.vgg import VGG, VGGBoxHead

VGG16 = dict(depths=[2, 2, 3, 3, 3], widths=[64, 128, 256, 512, 512])


def test_vgg16_is_torchvisions():
    """Same layers in the same order: with its weights, the same conv5_3 features."""
    theirs = torchvision.models.vgg16(weights=None).features.eval()
    ours = VGG(**VGG16).eval()
    convs = [m for m in theirs if isinstance(m, torch.nn.Conv2d)]
    assert len(convs) == len(list(ours.children())) == 13
    for mine, other in zip(ours.children(), convs):
        mine.load_state_dict(other.state_dict())
    assert [n for n, _ in ours.named_children()][:3] == ["conv1_1", "conv1_2", "conv2_1"]
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = theirs[:-1](image)  # all but the fifth pooling
        features = ours(image)["conv5"]
    assert features.shape == (1, 512, 4, 6)
    assert torch.allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_output_shape_is_true(norm):
    vgg = VGG(depths=[1, 2, 1], widths=[32, 32, 64], norm=norm, out_features=["conv2", "conv3"])
    vgg.eval()
    outputs = vgg(torch.rand(1, 3, 32, 48))
    assert outputs.keys() == vgg.output_shape().keys() == {"conv2", "conv3"}
    for name, shape in vgg.output_shape().items():
        assert outputs[name].shape == (1, shape.channels, 32 // shape.stride, 48 // shape.stride)
    assert vgg.size_divisibility == 4
    assert (vgg.conv1_1.bias is None) == (norm != "")


@pytest.mark.parametrize("norm", ["", "BN"])
def test_frozen_stages_do_not_train(norm):
    vgg = VGG(depths=[2, 1, 1], widths=[8, 8, 8], norm=norm, out_features=["conv3"], freeze_at=2)
    vgg.train()
    before = {k: v.clone() for k, v in vgg.state_dict().items() if k.startswith(("conv1", "conv2"))}
    vgg(torch.rand(2, 3, 16, 16))["conv3"].sum().backward()
    trained = {name.split("_")[0] for name, p in vgg.named_parameters() if p.grad is not None}
    assert trained == {"conv3"}
    after = vgg.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())  # running statistics, too


def test_unknown_output():
    with pytest.raises(ValueError, match="conv6"):
        VGG(**VGG16, out_features=["conv6"])


def test_built_from_the_config():
    cfg = small_cfg(
        MODEL__BACKBONE__FREEZE_AT=1, MODEL__VGG__NORM="GN", MODEL__VGG__WIDTHS=[32] * 4
    )
    vgg = build_backbone(cfg)
    assert vgg.output_shape() == {"conv4": ShapeSpec(channels=32, stride=8)}
    assert not vgg.conv1_1.weight.requires_grad and vgg.conv2_1.weight.requires_grad


def test_box_head():
    cfg = small_cfg(MODEL__VGG__FC_DIM=5, MODEL__VGG__DROPOUT=0.5)
    head = VGGBoxHead(cfg, ShapeSpec(channels=2, height=7, width=7))
    assert head.output_shape == ShapeSpec(channels=5)
    x = torch.rand(4, 2, 7, 7)
    head.eval()
    hidden = torch.relu(x.flatten(1) @ head.fc6.weight.T + head.fc6.bias)
    expected = torch.relu(hidden @ head.fc7.weight.T + head.fc7.bias)
    assert torch.allclose(head(x), expected, atol=1e-6) and torch.equal(head(x), head(x))
    assert head(torch.rand(0, 2, 7, 7)).shape == (0, 5)

    # dropout: with identity weights and ones, an output is 0 or 1 / 0.5 / 0.5
    head = VGGBoxHead(ShapeSpec(channels=1, height=10, width=10), fc_dim=100, dropout=0.5).train()
    for fc in (head.fc6, head.fc7):
        fc.weight.data = torch.eye(100)
        fc.bias.data.zero_()
    out = head(torch.ones(50, 1, 10, 10))
    assert set(out.unique().tolist()) == {0.0, 4.0}
    assert out.eq(0).float().mean().item() == pytest.approx(0.75, abs=0.05)
