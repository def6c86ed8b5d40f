"""Writing checkpoints: whole or not at all, the best one kept, old ones pruned."""

import os

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import TrainerBase
from small_models import small_cfg

from nrpn_d2 import check_nrpn_config
from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer, last_checkpoint
from nrpn_d2.engine.hooks import BestCheckpoint, best_metric
from nrpn_d2.utils.saving import atomic_open


def linear(value):
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, value)
    return model


def weight_in(path):
    return torch.load(path, weights_only=True)["model"]["weight"].item()


def test_failing_save_leaves_the_old_one(tmp_path):
    checkpointer = NRPNCheckpointer(linear(1.0), str(tmp_path))
    checkpointer.save("model_final")
    with pytest.raises(Exception, match="pickle"):
        checkpointer.save("model_final", what=lambda: None)
    assert weight_in(tmp_path / "model_final.pth") == 1.0
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_final.pth"]


def test_an_earlier_run_is_set_aside_by_a_new_run_only(tmp_path):
    """Loading with resume=False is also how Detectron2's projects evaluate a model."""
    checkpointer = NRPNCheckpointer(linear(1.0), str(tmp_path))
    checkpointer.save("model_final")
    checkpointer.write("model_best")
    files = sorted(os.listdir(tmp_path))
    best = str(tmp_path / "model_best.pth")
    for path in ("", best):
        checkpointer.resume_or_load(path, resume=False)
        assert sorted(os.listdir(tmp_path)) == files
    checkpointer.set_aside_earlier_run(best)  # what the new run starts from keeps its name
    assert set(os.listdir(tmp_path)) - set(files) == {"last_checkpoint.previous"}
    checkpointer.set_aside_earlier_run("")
    assert sorted(os.listdir(tmp_path)) == [
        "last_checkpoint.previous",
        "model_best.pth.previous",
        "model_final.pth",
    ]


def test_two_writers_of_one_file(tmp_path):
    """Each writes a file of its own until it is done; the last one wins."""
    path = str(tmp_path / "a.txt")
    with atomic_open(path, "w") as first:
        first.write("first, longer")
        with atomic_open(path, "w") as second:
            second.write("second")
        assert (tmp_path / "a.txt").read_text() == "second"
    assert (tmp_path / "a.txt").read_text() == "first, longer"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_old_checkpoints_are_pruned(tmp_path):
    """Also those from before the run was resumed; by time, so that a new run keeps its own."""
    others = ["model_final.pth", "model_best.pth", "model_12.pth"]
    for i, name in enumerate(["model_0000099.pth", "model_0000199.pth", *others]):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (i, i))
    checkpointer = NRPNCheckpointer(linear(1.0), str(tmp_path), keep=2)
    checkpointer.save("model_0000009")
    kept = {"model_0000199.pth", "model_0000009.pth", "last_checkpoint", *others}
    assert set(os.listdir(tmp_path)) == kept
    checkpointer.save("model_0000019")
    assert set(os.listdir(tmp_path)) == kept - {"model_0000199.pth"} | {"model_0000019.pth"}
    NRPNCheckpointer(linear(1.0), str(tmp_path), keep=0).save("model_0000029")
    assert len(os.listdir(tmp_path)) == len(kept) + 1


def test_only_the_main_process_writes(tmp_path):
    NRPNCheckpointer(linear(1.0), str(tmp_path), save_to_disk=False).save("model")
    assert not os.listdir(tmp_path)


def test_detectron2_reads_what_is_written(tmp_path):
    optimizer = torch.optim.SGD(linear(1.0).parameters(), lr=0.25)
    NRPNCheckpointer(linear(3.0), str(tmp_path), optimizer=optimizer).save("model", iteration=7)
    other = torch.optim.SGD(linear(1.0).parameters(), lr=0.5)
    checkpointer = DetectionCheckpointer(linear(0.0), str(tmp_path), optimizer=other)
    extra = checkpointer.resume_or_load("", resume=True)
    assert checkpointer.model.weight.item() == 3.0
    assert extra["iteration"] == 7 and other.param_groups[0]["lr"] == 0.25


class Evaluated(TrainerBase):
    """A trainer whose evaluation after each iteration gives the next of ``values``."""

    def __init__(self, folder, values, metric="bbox/AP50"):
        super().__init__()
        self.values = values
        self.model = linear(-1.0)
        self.hook = BestCheckpoint(NRPNCheckpointer(self.model, str(folder)), metric)
        self.register_hooks([self.hook])

    def run_step(self):
        torch.nn.init.constant_(self.model.weight, float(self.iter))
        if self.values[self.iter] is not None:
            self._last_eval_results = {"bbox": {"AP50": self.values[self.iter], "AP": 1.0}}


def best(folder):
    return torch.load(folder / "model_best.pth", weights_only=True)


def test_best_checkpoint(tmp_path):
    """Iteration 1 is the best; equal values, a lower one and NaN do not replace it."""
    NRPNCheckpointer(linear(9.0), str(tmp_path)).save("model_0000000")
    Evaluated(tmp_path, [50.0, 60.0, None, 60.0, float("nan"), 55.0]).train(0, 6)
    assert best(tmp_path)["best"] == {"metric": "bbox/AP50", "value": 60.0, "iteration": 1}
    assert best(tmp_path)["model"]["weight"].item() == 1.0 and best(tmp_path)["iteration"] == 1
    # a run is resumed from the last checkpoint, not from the best one
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "model_0000000.pth")


def test_best_checkpoint_of_a_resumed_run(tmp_path):
    values = [50.0, 60.0, 55.0, 65.0]
    Evaluated(tmp_path, values).train(0, 2)
    Evaluated(tmp_path, values).train(2, 3)
    assert best(tmp_path)["best"]["value"] == 60.0
    Evaluated(tmp_path, values).train(3, 4)
    assert best(tmp_path)["best"] == {"metric": "bbox/AP50", "value": 65.0, "iteration": 3}
    Evaluated(tmp_path, values).train(0, 1)  # a new run in the same folder
    assert best(tmp_path)["best"]["value"] == 50.0
    # the value of another metric says nothing about this one
    Evaluated(tmp_path, [None, 1.0], "bbox/AP").train(1, 2)
    assert best(tmp_path)["best"] == {"metric": "bbox/AP", "value": 1.0, "iteration": 1}


def test_metric_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="SOLVER.BEST_METRIC is 'AP51'.*bbox/AP50, bbox/AP"):
        Evaluated(tmp_path, [50.0], "AP51").train(0, 1)


@pytest.mark.parametrize(
    "overrides, expected",
    [
        ({"DATASETS__TEST": ("a",)}, "bbox/AP50"),
        ({"DATASETS__TEST": ("a", "b")}, "a/bbox/AP50"),
        ({"DATASETS__TEST": ("a",), "SOLVER__BEST_METRIC": "bbox/AP"}, "bbox/AP"),
        (
            {"DATASETS__TEST": ("a",), "MODEL__META_ARCHITECTURE": "ProposalNetwork"},
            "box_proposals/AR",
        ),
    ],
)
def test_best_metric(overrides, expected):
    cfg = small_cfg()
    for key, value in overrides.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    assert best_metric(cfg) == expected


def test_checkpoints_to_keep_is_checked():
    with pytest.raises(ValueError, match="SOLVER.CHECKPOINTS_TO_KEEP is -1"):
        check_nrpn_config(small_cfg(SOLVER__CHECKPOINTS_TO_KEEP=-1))
