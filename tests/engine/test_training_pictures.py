"""A training that is looked at: equal to the bit, pictures and losses of test images."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from PIL import Image
from small_models import TWO_OBJECTS, batch, instances, small_cfg
from small_training import (
    Trainer,
    assert_same_state,
    final_state,
    train,
    training_cfg,
    write_images,
)

from nrpn_d2.engine import pictures
from nrpn_d2.engine.validation import ValidationLosses, mean_losses
from nrpn_d2.utils.seeding import seed_all

WITH_BN = {"MODEL__VGG__NORM": "BN", "MODEL__VGG__DROPOUT": 0.5}
LOOKED_AT = {"VIS_PERIOD": 2, "TEST__EVAL_PERIOD": 2, "DATASETS__TEST": ("small_test",)}


class Recorded(pictures.DrawPictures):
    seen = {}

    def _look(self, done, storage):
        super()._look(done, storage)
        self.seen[done] = [name for name, *_ in storage._vis_data], list(storage._histograms)
        assert self._model.vis_period == 0


@pytest.fixture
def evaluates_nothing(monkeypatch):
    monkeypatch.setattr(Trainer, "test", classmethod(lambda *_: {}))
    monkeypatch.setattr("nrpn_d2.engine.trainer.BestCheckpoint.after_step", lambda self: None)


def test_a_training_that_is_looked_at(tmp_path, evaluates_nothing, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("nrpn_d2.engine.trainer.DrawPictures", Recorded)
    monkeypatch.setattr(pictures, "MAX_KEPT", 2)
    monkeypatch.setattr(pictures, "NUM_IMAGES", 2)
    folder, name = write_images(tmp_path / "data"), "\u56f3" * 70  # of 210 bytes
    for path in Path(folder).glob("*/im3.*"):
        path.rename(path.with_stem(name))
    for path in Path(folder).glob("ImageSets/Main/*.txt"):
        path.write_text(path.read_text().replace("im3", name))
    train(training_cfg(folder, tmp_path / "not", **WITH_BN))
    trainer = train(training_cfg(folder, tmp_path / "out", **WITH_BN, **LOOKED_AT))
    assert_same_state(final_state(tmp_path / "out"), final_state(tmp_path / "not"))

    losses = [value for value, _ in trainer.storage.history("validation/total").values()]
    assert len(set(losses)) == 3
    with open(tmp_path / "out" / "metrics.json") as f:
        last = {key: value for line in f for key, value in json.loads(line).items()}
    assert last["validation/total"] == losses[-1] and last["validation/rpn_cls"] > 0
    assert last["calibration/ECE"] > 0
    assert sum(last[f"calibration/share_{b}"] for b in range(10)) == pytest.approx(100)

    images, histograms = Recorded.seen[6]
    names = "0_im0", "1_" + ("\\u56f3" * 70)[:100], "calibration"
    assert images[-3:] == [f"pictures/{name}" for name in names]
    objects, background, hard = (h["bucket_counts"] for h in histograms[-3:])
    assert sum(background) > sum(objects) > 0 and sum(hard) > 0
    in_warmup = [h["tag"] for h in Recorded.seen[2][1]]
    assert in_warmup == ["objectness/objects", "objectness/background"]
    kept = sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir())
    assert len(kept) == 6 and {name[-11:-4] for name in kept} == {"0000002", "0000006"}
    assert all(Image.open(path).format == "JPEG" for path in (tmp_path / "out/pictures").iterdir())
    assert "2 test images: 16 false positives per image; the RPN believes" in caplog.text


@pytest.mark.parametrize("generator", ["HardNegativeRPN", "RPN"])
def test_nothing_to_look_at(tmp_path, evaluates_nothing, generator, caplog):
    """No object to learn: a message. Detectron2's RPN: its own pictures."""
    folder = write_images(tmp_path / "data")
    options = {**LOOKED_AT, "SOLVER__MAX_ITER": 2, "MODEL__PROPOSAL_GENERATOR__NAME": generator}
    cfg = training_cfg(folder, tmp_path, **options)
    trainer = Trainer(cfg)
    with open(f"{folder}/ImageSets/Main/test.txt", "w") as f:
        f.write("im4\n")
    trainer = Trainer(cfg)
    trainer.train()
    assert not (tmp_path / "pictures").exists()
    assert "No losses on test images: small_test: none of 1 images has an object" in caplog.text
    is_ours = generator == "HardNegativeRPN"
    assert ("No pictures every VIS_PERIOD iterations: 'small" in caplog.text) == is_ours
    assert trainer.model.vis_period == (0 if is_ours else 2)


def test_mean_losses_by_hand():
    """Of a model without dropout or batch normalisation, they are those of training."""
    model = build_model(small_cfg(MODEL__VGG__DROPOUT=0.0)).train()
    inputs = batch(instances(TWO_OBJECTS), instances([]), instances(TWO_OBJECTS[:1]))
    inputs = [{**image, "image_id": 0} for image in inputs]
    totals = []
    with EventStorage(0):
        for image in inputs:
            seed_all(0, 0xF4DBDF21)  # CRC-32 of "0"
            totals.append(sum(model([image]).values()).item())
        found = mean_losses(model, [inputs[:2], inputs[2:]])
    assert found["total"] == pytest.approx(np.mean(totals))
    assert found["total"] == pytest.approx(sum(v for k, v in found.items() if k != "total"))
    assert {"rpn_cls", "rpn_loc", "nrpn_cls", "cls", "box_reg"} < found.keys()
    assert model.training and all(p.grad is None for p in model.parameters())


def test_losses_of_a_model_that_diverged():
    """They are what they are; a validation does not end a training."""
    model = build_model(small_cfg())
    model.proposal_generator.rpn_head.objectness_logits.bias.data.fill_(np.nan)
    with EventStorage(0):
        losses = mean_losses(model, [[{**batch(instances(TWO_OBJECTS))[0], "image_id": 0}]])
    assert np.isnan(losses["rpn_cls"]) and np.isnan(losses["total"])
    assert np.isfinite(losses["rpn_loc"])


def test_losses_of_several_datasets(tmp_path):
    folder = write_images(tmp_path / "data")
    cfg = training_cfg(folder, tmp_path, DATASETS__TEST=("small_test", "small_train"))
    with EventStorage(0):
        losses = ValidationLosses(cfg, build_model(cfg))()
    assert losses["validation/small_test/total"] > 0 and losses["validation/small_train/total"] > 0
    assert all(torch.tensor(list(losses.values())).isfinite())
