"""The nRPN's backbone starts from the same weights as the RPN's, whoever loads them."""

import logging
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from small_models import TWO_OBJECTS, batch, instances, small_cfg
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.optim.swa_utils import AveragedModel

from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer
from nrpn_d2.utils.safe_load import CheckpointError

SHARED = {"MODEL__NRPN__SHARE_FEATURES": True}
RANDOM = {"MODEL__RPN__NEGATIVE_SAMPLER__NAME": "Random"}
NRPN_BACKBONE = "proposal_generator.negative_rpn.backbone."


def equal_backbones(model):
    nrpn = model.proposal_generator.negative_rpn.backbone.state_dict()
    return all(torch.equal(v, nrpn[k]) for k, v in model.backbone.state_dict().items())


def equal_states(model, other):
    pairs = zip(model.state_dict().items(), other.state_dict().items())
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def backbone_weights(model):
    return {f"backbone.{k}": torch.randn_like(v) for k, v in model.backbone.state_dict().items()}


def saved(weights, tmp_path):
    torch.save({"model": weights}, tmp_path / "model.pth")
    return str(tmp_path / "model.pth")


@pytest.mark.parametrize("checkpointer", [DetectionCheckpointer, NRPNCheckpointer])
@pytest.mark.parametrize("meta_architecture", ["GeneralizedRCNN", "ProposalNetwork"])
@pytest.mark.parametrize("prefix", ["", "module."])  # of DistributedDataParallel
def test_backbone_only(checkpointer, meta_architecture, prefix, tmp_path, caplog):
    model = build_model(small_cfg("vgg", meta_architecture))
    assert not equal_backbones(model)
    weights = {prefix + k: v for k, v in backbone_weights(model).items()}
    with caplog.at_level(logging.INFO, logger="nrpn_d2.checkpoint.nrpn_weights"):
        checkpointer(model).load(saved(weights, tmp_path))
    assert torch.equal(model.backbone.conv1_1.weight, weights[f"{prefix}backbone.conv1_1.weight"])
    assert equal_backbones(model)
    assert "8 tensors" in caplog.text and NRPN_BACKBONE not in caplog.text
    # two copies, not one shared tensor
    model.proposal_generator.negative_rpn.backbone.conv1_1.weight.data.zero_()
    assert model.backbone.conv1_1.weight.any()


@pytest.mark.parametrize("checkpointer", [DetectionCheckpointer, NRPNCheckpointer])
def test_nrpn_without_a_backbone_of_its_own(checkpointer, tmp_path):
    """The checkpoint of a run with MODEL.NRPN.SHARE_FEATURES has an nRPN, but one backbone."""
    shared, model = build_model(small_cfg(**SHARED)), build_model(small_cfg())
    checkpointer(model).load(saved(shared.state_dict(), tmp_path))
    assert equal_backbones(model) and torch.equal(
        model.backbone.conv1_1.weight, shared.backbone.conv1_1.weight
    )
    heads = (m.proposal_generator.negative_rpn.head for m in (model, shared))
    assert equal_states(*heads)


@pytest.mark.parametrize("overrides", [SHARED, RANDOM])
def test_a_run_with_one_backbone_is_not_resumed_with_two(overrides, tmp_path):
    NRPNCheckpointer(build_model(small_cfg(**overrides)), str(tmp_path)).save("model_0000009")
    checkpointer = NRPNCheckpointer(build_model(small_cfg()), str(tmp_path))
    with pytest.raises(CheckpointError, match=rf"another model(.|\n)*{NRPN_BACKBONE}conv1_1"):
        checkpointer.resume_or_load("", resume=True)


@pytest.mark.parametrize("overrides", [SHARED, RANDOM])
def test_nothing_to_start(overrides, tmp_path, caplog):
    model = build_model(small_cfg(**overrides))
    DetectionCheckpointer(model).load(saved(backbone_weights(model), tmp_path))
    assert "nRPN" not in caplog.text


def test_model_zoo_files_by_name_matching(tmp_path):
    """R-50.pkl and its like name "stem.conv1.weight", which ends two names of the model."""
    model = build_model(small_cfg("fpn"))
    weights = {
        name: torch.randn_like(value).numpy()
        for name, value in model.backbone.bottom_up.state_dict().items()
    }
    path = tmp_path / "R-18.pkl"
    data = {"model": weights, "__author__": "test", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(data))
    DetectionCheckpointer(model).load(str(path))
    for backbone in (model.backbone, model.proposal_generator.negative_rpn.backbone):
        state = backbone.bottom_up.state_dict()
        assert all(torch.equal(state[k], torch.from_numpy(v)) for k, v in weights.items())


@pytest.mark.parametrize("backbone", ["vgg", "fpn"])
def test_saved_and_loaded_by_detectron2s_checkpointer(backbone, tmp_path):
    model, other = build_model(small_cfg(backbone)), build_model(small_cfg(backbone))
    DetectionCheckpointer(model, save_dir=str(tmp_path)).save("model")
    DetectionCheckpointer(other).load(str(tmp_path / "model.pth"))
    assert equal_states(model, other) and not equal_backbones(other)
    model.eval(), other.eval()
    inputs = batch(instances(TWO_OBJECTS))
    with torch.no_grad():
        scores = [m(inputs)[0]["instances"].scores for m in (model, other)]
    assert torch.equal(*scores)


# ---- Names in state dicts


def test_names_are_those_of_parameters():
    model = build_model(small_cfg())
    state = model.state_dict()
    assert all(torch.equal(state[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("load", ["torch", DetectionCheckpointer, NRPNCheckpointer])
def test_checkpoints_of_version_0_1(load, tmp_path):
    """There the parameters of the nRPN's backbone ended with ".nrpn"."""
    model, other = build_model(small_cfg()), build_model(small_cfg())
    state = model.state_dict().items()
    old = {k + ".nrpn" if k.startswith(NRPN_BACKBONE) else k: v for k, v in state}
    assert sum(name.endswith(".nrpn") for name in old) == 8
    if load == "torch":
        other.load_state_dict(old)
    else:
        load(other).load(saved(old, tmp_path))
    assert equal_states(model, other)


@pytest.mark.filterwarnings("ignore")  # torch's: there is one process
def test_torchs_distributed_checkpoints(tmp_path):
    model, other = build_model(small_cfg()), build_model(small_cfg())
    dcp.save({"model": get_model_state_dict(model)}, checkpoint_id=tmp_path, no_dist=True)
    state = {"model": get_model_state_dict(other)}
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    set_model_state_dict(other, state["model"])
    assert equal_states(model, other)


def test_averaged_weights(tmp_path):
    model, other = build_model(small_cfg()), build_model(small_cfg())
    averaged = AveragedModel(model)
    for value in (1.0, 3.0):
        for p in model.parameters():
            torch.nn.init.constant_(p, value)
        averaged.update_parameters(model)
    # "module." and the counter of models are AveragedModel's
    DetectionCheckpointer(other).load(saved(averaged.module.state_dict(), tmp_path))
    assert all((p == 2).all() for p in other.parameters())
    assert {n for n, _ in averaged.named_parameters()} <= averaged.state_dict().keys()


def test_importing_adds_no_hook_to_other_models():
    assert not torch.nn.modules.module._global_module_registration_hooks
