"""Losses that are not finite: the run stops, and the step is replayed; or the batch is skipped."""

import itertools
import math
import re
import sys
import weakref

import pytest
import replay_step
import torch
from detectron2.engine import HookBase
from detectron2.structures import Boxes, Instances
from small_training import (
    Trainer,
    assert_same_state,
    final_state,
    train,
    training_cfg,
    write_images,
)

from nrpn_d2 import check_nrpn_config
from nrpn_d2.data import VOCDatasetMapper
from nrpn_d2.data.loader import build_train_loader
from nrpn_d2.engine import trainer as trainer_module
from nrpn_d2.engine.replay import from_plain, to_plain
from nrpn_d2.engine.train_loop import NonFiniteLoss
from nrpn_d2.utils.safe_load import load_file

EVERY_STEP = {"SOLVER__CHECKPOINT_PERIOD": 1, "SOLVER__CHECKPOINTS_TO_KEEP": 0}


class InfiniteImage(VOCDatasetMapper):
    """The third image has infinite pixels."""

    def __call__(self, record):
        data = super().__call__(record)
        if record["image_id"] == "im2":
            data["image"] = data["image"].float() * math.inf
        return data


class InfiniteImageTrainer(Trainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return build_train_loader(cfg, InfiniteImage(cfg, is_train=True))


class InfiniteBias(HookBase):
    """Breaks one number in the model before iteration 4."""

    def __init__(self, layer):
        self.layer = layer

    def before_step(self):
        if self.trainer.iter == 4:
            self.trainer.model.get_submodule(self.layer).bias.data[0] = math.inf


class InfiniteBiasTrainer(Trainer):
    LAYER = "roi_heads.box_predictor.cls_score"

    def build_hooks(self):
        return [InfiniteBias(self.LAYER), *super().build_hooks()]


class InfiniteDeltaTrainer(InfiniteBiasTrainer):
    LAYER = "proposal_generator.rpn_head.anchor_deltas"


def weights_after(output, iteration):
    return load_file(f"{output}/model_{iteration:07d}.pth")["model"]


def bad_iterations(cfg):
    """Those whose batch has the third image."""
    for i, batch in enumerate(InfiniteImageTrainer.build_train_loader(cfg)):
        if any(x["image_id"] == "im2" for x in batch):
            yield i


def stop(cfg, trainer):
    """The message of the error that ends the training, and the file that it names."""
    with pytest.raises(NonFiniteLoss) as error:
        train(cfg, trainer=trainer)
    message = str(error.value)
    return message, re.search(r"saved: (\S+\.pth)", message).group(1)


def replay(monkeypatch, capsys, cfg, file, folder):
    """loss -> (then, now), and all that tools/replay_step.py prints."""
    (folder / "config.yaml").write_text(cfg.dump())
    command = ["replay_step.py", file, "--config-file", str(folder / "config.yaml")]
    monkeypatch.setattr(sys, "argv", command)
    replay_step.main()
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if line.startswith("loss_")]
    return {name: (float(then), float(now)) for name, then, now, *_ in lines}, printed


def test_predictions_that_are_not_finite(tmp_path, monkeypatch, capsys):
    """Detectron2's RPN raises in its forward pass; our error says more; the step is replayed."""
    cfg = training_cfg(write_images(tmp_path), tmp_path / "out", **EVERY_STEP)
    bad = next(bad_iterations(cfg))
    message, file = stop(cfg, InfiniteImageTrainer)
    assert f"Iteration {bad}: the losses are not finite" in message
    assert f"{tmp_path}/JPEGImages/im2.png" in message and "loss_rpn_cls nan" in message
    assert "Predicted boxes or scores contain Inf/NaN" in message
    assert "weights were not finite" not in message
    assert file == f"{tmp_path}/out/nonfinite_iter_{bad:07d}_rank0.pth"
    saved = load_file(file)
    assert_same_state(dict(saved["model"]), dict(weights_after(tmp_path / "out", bad - 1)))
    again, printed = replay(monkeypatch, capsys, cfg, file, tmp_path)
    assert set(again) == set(saved["losses"])
    assert math.isnan(again["loss_rpn_cls"][1]) and "Predicted boxes" in printed
    assert f"Iteration {bad}, rank 0, seed 1" in printed and "im2.png" in printed


def test_one_loss_that_is_not_finite(tmp_path, monkeypatch, capsys):
    """The replay draws the same samples: it gives the same losses to all printed digits."""
    cfg = training_cfg(write_images(tmp_path), tmp_path / "out", **EVERY_STEP)
    message, file = stop(cfg, InfiniteBiasTrainer)
    assert "Iteration 4: " in message and "loss_cls nan" in message
    assert "not finite: roi_heads.box_predictor.cls_score.bias" in message
    assert not [name for name in re.findall(r"(\w+) nan", message) if name != "loss_cls"]
    saved = load_file(file)
    assert saved["iteration"] == 4 and saved["seed"] == 1 and saved["world_size"] == 1
    again, printed = replay(monkeypatch, capsys, cfg, file, tmp_path)
    assert len(again) == 5 and again["loss_nrpn_cls"][1] > 0
    for name, (then, now) in again.items():
        assert math.isnan(now) if name == "loss_cls" else then == now, name
    assert re.search(r"loss_cls +nan +nan +<- not finite\n", printed)
    assert printed.count("<-") == 1


def test_predictions_that_are_not_finite_where_no_loss_is(tmp_path):
    """The x of boxes from the smallest, widest anchor, which is positive for no object."""
    message, _ = stop(training_cfg(write_images(tmp_path), tmp_path / "o"), InfiniteDeltaTrainer)
    assert "Iteration 4: " in message and "Predicted boxes or scores" in message
    assert "nan" not in message and " inf" not in message


def test_replay_of_something_else(tmp_path, monkeypatch):
    cfg = training_cfg(write_images(tmp_path), tmp_path / "out")
    train(cfg)
    file = str(tmp_path / "out/model_final.pth")
    monkeypatch.setattr(sys, "argv", ["replay_step.py", file, "--config-file", "x.yaml"])
    with pytest.raises(SystemExit, match="model_final.pth is a checkpoint without a training step"):
        replay_step.main()


def test_skipped_batches(tmp_path, caplog):
    """A skipped step leaves weights, momentum and statistics alone, and the others go on."""
    cfg = training_cfg(
        write_images(tmp_path),
        tmp_path / "out",
        SOLVER__SKIP_NONFINITE=9,
        MODEL__VGG__NORM="BN",
        **EVERY_STEP,
    )
    bad = next(bad_iterations(cfg))
    trainer = train(cfg, trainer=InfiniteImageTrainer)
    assert trainer.skipped_nonfinite >= 1
    before, after, later = (
        load_file(f"{tmp_path}/out/model_{i:07d}.pth") for i in (bad - 1, bad, bad + 1)
    )
    assert_same_state(dict(before["model"]), dict(after["model"]))
    optimizer = [x["trainer"]["_trainer"]["optimizer"]["state"] for x in (before, after)]
    assert_same_state(*optimizer)
    name = "backbone.conv1_1.weight"
    assert not torch.equal(after["model"][name], later["model"][name])
    weights = final_state(tmp_path / "out")["model"]
    assert all(value.isfinite().all() for value in weights.values())
    scalars = (tmp_path / "out/metrics.json").read_text()
    assert f'"skipped_nonfinite": {float(trainer.skipped_nonfinite)}' in scalars
    assert "Skipped, as number 1 of SOLVER.SKIP_NONFINITE 9" in caplog.text
    assert "im2.png" in caplog.text and not list((tmp_path / "out").glob("nonfinite*"))


def test_gradients_of_a_skipped_batch_are_cleared(tmp_path):
    cfg = training_cfg(write_images(tmp_path), tmp_path / "out", SOLVER__SKIP_NONFINITE=9)
    trainer = InfiniteImageTrainer(cfg)
    trainer.max_iter = next(bad_iterations(cfg)) + 1
    trainer.train()
    assert all(p.grad is None for p in trainer.model.parameters())


def test_skips_are_counted_over_the_whole_run(tmp_path):
    """At most one is allowed; it was skipped before the run was interrupted."""
    cfg = training_cfg(
        write_images(tmp_path), tmp_path / "out", SOLVER__SKIP_NONFINITE=1, SOLVER__MAX_ITER=20
    )
    first, second = itertools.islice(bad_iterations(cfg), 2)
    trainer = InfiniteImageTrainer(cfg)
    trainer.max_iter = first + 1
    trainer.train()
    assert trainer.skipped_nonfinite == 1
    message, file = stop(cfg, InfiniteImageTrainer)
    assert load_file(file)["iteration"] == second
    assert "SOLVER.SKIP_NONFINITE (now 1)" in message


def test_without_room_for_the_file(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer_module, "save_step", full)
    with pytest.raises(NonFiniteLoss, match="loss_cls nan.*not saved: .*No space left on device"):
        train(training_cfg(write_images(tmp_path), tmp_path / "o"), trainer=InfiniteBiasTrainer)


def test_config():
    cfg = training_cfg("", ".", SOLVER__SKIP_NONFINITE=-1)
    with pytest.raises(ValueError, match="SOLVER.SKIP_NONFINITE is -1"):
        check_nrpn_config(cfg)


def test_the_model_is_left_as_it_was(tmp_path):
    """What watches the steps does not stay in the model, nor keep the trainer alive."""
    trainer = train(training_cfg(write_images(tmp_path), tmp_path / "out"))
    assert "predict_proposals" not in vars(trainer.model.proposal_generator)
    assert not trainer.model._forward_pre_hooks
    loop, model = weakref.ref(trainer._trainer), trainer.model
    del trainer
    assert loop() is None and model.training


def test_batches_as_plain_data(tmp_path):
    gt = Instances((4, 6), gt_boxes=Boxes([[0, 1, 2, 3]]), gt_classes=torch.tensor([-1]))
    gt.gt_masks = ["no tensor"]
    item = {"image": torch.ones(3, 4, 6), "height": 8, "file_name": "x", "instances": gt}
    torch.save(to_plain([{**item, "left_out": open}]), tmp_path / "batch.pth")
    (again,) = from_plain(torch.load(tmp_path / "batch.pth", weights_only=True))
    assert list(again) == list(item)
    assert again["instances"].image_size == (4, 6) and again["height"] == 8
    assert again["instances"].gt_boxes.tensor.tolist() == [[0, 1, 2, 3]]
    assert again["instances"].gt_classes.tolist() == [-1]
    assert not again["instances"].has("gt_masks")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_overflow_of_the_scaled_gradients_is_no_skip(tmp_path):
    """A gradient scale of 2**40 overflows float16; the scaler skips these steps, on its own."""
    cfg = training_cfg(
        write_images(tmp_path), tmp_path / "out", MODEL__DEVICE="cuda", SOLVER__AMP__ENABLED=True
    )
    trainer = Trainer(cfg)
    trainer._trainer.grad_scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    trainer.train()
    assert trainer._trainer.grad_scaler.get_scale() < 2.0**40
    assert trainer.skipped_nonfinite == 0
