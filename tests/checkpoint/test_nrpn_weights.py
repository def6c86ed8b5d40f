"""Weights in: the nRPN's backbone starts from the same weights, whoever loads them."""

import logging
import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from small_models import TWO_OBJECTS, batch, instances, small_cfg


def equal_backbones(model):
    nrpn = model.proposal_generator.negative_rpn.backbone
    pairs = list(zip(model.backbone.state_dict().items(), nrpn.state_dict().items()))
    assert len(pairs) > 4
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def backbone_weights(model):
    return {f"backbone.{k}": torch.randn_like(v) for k, v in model.backbone.state_dict().items()}


@pytest.mark.parametrize("meta_architecture", ["GeneralizedRCNN", "ProposalNetwork"])
def test_backbone_only(meta_architecture, caplog):
    model = build_model(small_cfg("vgg", meta_architecture))
    assert not equal_backbones(model)
    weights = backbone_weights(model)
    with caplog.at_level(logging.INFO, logger="nrpn_d2.checkpoint.nrpn_weights"):
        result = model.load_state_dict(weights, strict=False)
    assert torch.equal(model.backbone.conv1_1.weight, weights["backbone.conv1_1.weight"])
    assert equal_backbones(model)
    assert not result.unexpected_keys
    assert not [k for k in result.missing_keys if "backbone" in k]
    assert "8 tensors of backbone" in caplog.text
    # two copies, not one shared tensor
    model.proposal_generator.negative_rpn.backbone.conv1_1.weight.data.zero_()
    assert model.backbone.conv1_1.weight.any()


def test_checkpoint_with_an_nrpn_keeps_its_own(caplog):
    model, other = build_model(small_cfg()), build_model(small_cfg())
    with caplog.at_level(logging.INFO, logger="nrpn_d2.checkpoint.nrpn_weights"):
        other.load_state_dict(model.state_dict())
    assert not equal_backbones(other) and not caplog.text
    for (a, x), (b, y) in zip(model.state_dict().items(), other.state_dict().items()):
        assert a == b and torch.equal(x, y)


@pytest.mark.parametrize(
    "overrides",
    [
        {"MODEL__NRPN__SHARE_FEATURES": True},
        {"MODEL__RPN__NEGATIVE_SAMPLER__NAME": "Random"},
    ],
)
def test_nothing_to_initialise(overrides):
    model = build_model(small_cfg(**overrides))
    result = model.load_state_dict(backbone_weights(model), strict=False)
    assert not result.unexpected_keys


def test_model_zoo_files_by_name_matching(tmp_path):
    """R-50.pkl and its like name "stem.conv1.weight", which ends two names of the model."""
    model = build_model(small_cfg("fpn"))
    weights = {
        name: torch.randn_like(value).numpy()
        for name, value in model.backbone.bottom_up.state_dict().items()
    }
    path = tmp_path / "R-18.pkl"
    path.write_bytes(
        pickle.dumps({"model": weights, "__author__": "test", "matching_heuristics": True})
    )
    DetectionCheckpointer(model).load(str(path))
    nrpn = model.proposal_generator.negative_rpn.backbone
    for name, value in weights.items():
        assert torch.equal(model.backbone.bottom_up.state_dict()[name], torch.from_numpy(value))
        assert torch.equal(nrpn.bottom_up.state_dict()[name], torch.from_numpy(value))


@pytest.mark.parametrize("backbone", ["vgg", "fpn"])
def test_saved_and_loaded_by_detectron2s_checkpointer(backbone, tmp_path):
    model, other = build_model(small_cfg(backbone)), build_model(small_cfg(backbone))
    DetectionCheckpointer(model, save_dir=str(tmp_path)).save("model")
    DetectionCheckpointer(other).load(str(tmp_path / "model.pth"))
    for (a, x), (b, y) in zip(model.named_parameters(), other.named_parameters()):
        assert a == b and torch.equal(x, y)
    model.eval(), other.eval()
    inputs = batch(instances(TWO_OBJECTS))
    with torch.no_grad():
        assert torch.equal(
            model(inputs)[0]["instances"].scores, other(inputs)[0]["instances"].scores
        )


def test_prefix_of_a_wrapper():
    model = build_model(small_cfg())
    wrapper = torch.nn.Sequential()
    wrapper.add_module("module", model)
    weights = {f"module.{k}": v for k, v in backbone_weights(model).items()}
    wrapper.load_state_dict(weights, strict=False)
    assert equal_backbones(model)


@pytest.mark.filterwarnings("ignore")  # torch's, on tracing
def test_exported_models_can_be_loaded(tmp_path):
    """Their modules have the same names, and take no hooks."""
    model = torch.nn.Sequential()
    model.proposal_generator = torch.nn.Sequential()
    model.proposal_generator.negative_rpn = torch.nn.Sequential()
    model.proposal_generator.negative_rpn.backbone = torch.nn.Linear(2, 2)
    torch.jit.trace(model, torch.ones(1, 2)).save(str(tmp_path / "model.ts"))
    loaded = torch.jit.load(str(tmp_path / "model.ts"))
    assert torch.equal(loaded(torch.ones(1, 2)), model(torch.ones(1, 2)))
