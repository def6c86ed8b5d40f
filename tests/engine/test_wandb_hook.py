"""Weights & Biases: what a stub of it is told. It was tried with the real one, offline."""

import sys
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from nrpn_d2.engine.trainer import Trainer


@pytest.fixture
def wandb(monkeypatch):
    stub = MagicMock(spec_set=["init", "Image", "Histogram", "Error"])
    stub.Error = type("Error", (Exception,), {})
    stub.init.return_value.id = "abc123"
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setitem(sys.modules, "wandb.sdk", ModuleType("wandb.sdk"))
    return stub


def logged(stub):
    """What is logged: (step, name) -> value."""
    calls = stub.init.return_value.log.call_args_list
    return {(call.kwargs["step"], k): v for call in calls for k, v in call.args[0].items()}


def test_a_training_and_its_resumption_are_one_run(run, wandb, monkeypatch):
    monkeypatch.setattr(Trainer, "test", lambda *_: {"bbox": {"AP50": 12.5}})
    run.options |= {"WANDB_PROJECT": "mine", "VIS_PERIOD": "1", "DATASETS.TEST": "('own_test',)"}
    run.train()
    values = logged(wandb)
    assert {(0, "total_loss"), (0, "nrpn/joint")} <= values.keys()
    assert values[1, "bbox/AP50"] == 12.5  # of the evaluation at the end
    assert any(value is wandb.Image.return_value for value in values.values())
    assert wandb.Image.call_args.args[0].shape[2] == 3
    settings = wandb.init.call_args.kwargs
    assert settings["project"] == "mine" and settings["dir"] == str(run.out)
    assert settings["config"]["SOLVER"]["MAX_ITER"] == 1 and settings["id"] is None
    assert wandb.Histogram.called
    wandb.init.return_value.finish.assert_called_once_with(exit_code=0)

    run.options["SOLVER.MAX_ITER"] = "2"
    run.flags.append("--resume")
    run.train()
    assert wandb.init.call_args.kwargs["id"] == "abc123"
    run.flags.remove("--resume")
    run.train()
    assert wandb.init.call_args.kwargs["id"] is None  # a new training


def test_a_training_that_fails_is_none_that_finished(run, wandb):
    run.options |= {"WANDB_PROJECT": "mine", "SOLVER.BASE_LR": "1e30", "SOLVER.WARMUP_ITERS": "0"}
    run.options["SOLVER.MAX_ITER"] = "3"
    with pytest.raises(SystemExit):
        run.train()
    wandb.init.return_value.finish.assert_called_once_with(exit_code=1)


def test_it_is_off_by_default(run, wandb):
    run.train()
    assert not wandb.init.called


def test_a_missing_package_is_an_error_before_the_training(run, monkeypatch):
    run.options["WANDB_PROJECT"] = "mine"
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))  # a folder of that name
    with pytest.raises(SystemExit, match="wandb is not installed; pip install wandb, or leave"):
        run.train()
    assert not run.out.exists()


def test_a_refusal_is_an_error_in_one_line(run, wandb):
    run.options["WANDB_PROJECT"] = "mine"
    wandb.init.side_effect = wandb.Error("no API key")
    with pytest.raises(SystemExit, match="'mine': no API key; log in with wandb login"):
        run.train()
