"""Losses that are not finite: the run stops before they reach the weights, and says where."""

import math
import weakref

import pytest
import torch
from detectron2.engine import HookBase
from small_training import Trainer, train, training_cfg, write_images

from nrpn_d2.data import VOCDatasetMapper
from nrpn_d2.data.loader import build_train_loader
from nrpn_d2.engine.train_loop import NonFiniteLoss


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


def stop(cfg, trainer):
    """Return the message of the error that ends the training."""
    with pytest.raises(NonFiniteLoss) as error:
        train(cfg, trainer=trainer)
    return str(error.value)


def test_predictions_that_are_not_finite(tmp_path):
    """Detectron2's RPN raises in its forward pass; our error says more."""
    cfg = training_cfg(write_images(tmp_path), tmp_path / "out")
    batches = enumerate(InfiniteImageTrainer.build_train_loader(cfg))
    bad = next(i for i, batch in batches if any(x["image_id"] == "im2" for x in batch))
    message = stop(cfg, InfiniteImageTrainer)
    assert f"Iteration {bad}: the losses are not finite" in message
    assert f"{tmp_path}/JPEGImages/im2.png" in message and "loss_rpn_cls nan" in message
    assert "Predicted boxes or scores contain Inf/NaN" in message
    assert "weights were not finite" not in message
    weights = torch.load(tmp_path / f"out/model_{bad - bad % 2 - 1:07d}.pth")["model"]
    assert all(value.isfinite().all() for value in weights.values())


def test_one_loss_that_is_not_finite(tmp_path):
    message = stop(training_cfg(write_images(tmp_path), tmp_path / "out"), InfiniteBiasTrainer)
    assert (
        "Iteration 4: " in message and message.count(" nan") == message.count("loss_cls nan") == 1
    )
    assert "not finite: roi_heads.box_predictor.cls_score.bias" in message


def test_predictions_that_are_not_finite_where_no_loss_is(tmp_path):
    """The x of boxes from the smallest, widest anchor, which is positive for no object."""
    message = stop(training_cfg(write_images(tmp_path), tmp_path / "o"), InfiniteDeltaTrainer)
    assert "Iteration 4: " in message and "Predicted boxes or scores" in message
    assert "nan" not in message and " inf" not in message


def test_the_model_is_left_as_it_was(tmp_path):
    """What watches the steps does not stay in the model, nor keep the trainer alive."""
    trainer = train(training_cfg(write_images(tmp_path), tmp_path / "out"))
    assert "predict_proposals" not in vars(trainer.model.proposal_generator)
    assert not trainer.model._forward_pre_hooks
    loop, model = weakref.ref(trainer._trainer), trainer.model
    del trainer
    assert loop() is None and model.training


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
