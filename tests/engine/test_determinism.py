"""The same seed gives the same weights, to the bit."""

import os

import pytest
import torch
from detectron2.data import build_detection_train_loader
from small_training import (
    Trainer,
    assert_same_state,
    final_state,
    train,
    training_cfg,
    write_images,
)

from nrpn_d2.engine.trainer import use_deterministic_algorithms
from nrpn_d2.utils.seeding import seed_all


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder, and the checkpoint at the end of a run on it."""
    folder = tmp_path_factory.mktemp("once")
    train(training_cfg(write_images(folder), folder / "out"))
    return folder, final_state(folder / "out")


@pytest.mark.parametrize("num_workers", [0, 3])
def test_same_seed_same_weights(once, num_workers, tmp_path):
    """Whatever was drawn before, and whichever processes load the images."""
    folder, expected = once
    seed_all(99)
    train(training_cfg(folder, tmp_path, DATALOADER__NUM_WORKERS=num_workers))
    assert_same_state(final_state(tmp_path), expected)


def test_other_seed_other_weights_and_data(once, tmp_path):
    folder, expected = once
    seen = set()
    for seed in (2, 3, 4):
        trainer = train(training_cfg(folder, tmp_path / str(seed), SEED=seed))
        weights = final_state(tmp_path / str(seed))["model"]
        assert all(not torch.equal(weights[name], expected["model"][name]) for name in weights)
        seen.add(tuple(item["image"].numpy().tobytes() for item in trainer._trainer.batch))
    assert len(seen) > 1


def test_a_subclass_may_have_another_loader(once, tmp_path, monkeypatch):
    loader = staticmethod(build_detection_train_loader)
    monkeypatch.setattr(Trainer, "build_train_loader", loader)
    train(training_cfg(once[0], tmp_path))
    assert final_state(tmp_path)["iteration"] == once[1]["iteration"]


@pytest.fixture
def deterministic():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


def test_deterministic_algorithms(once, deterministic, tmp_path, monkeypatch):
    """On the CPU they are the ones used anyway."""
    folder, expected = once
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # restored afterwards
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    torch.backends.cudnn.benchmark = True
    train(training_cfg(folder, tmp_path, SOLVER__DETERMINISTIC=True))
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert_same_state(final_state(tmp_path), expected)


def test_deterministic_algorithms_that_do_not_exist(tmp_path, deterministic, monkeypatch):
    """RoIPool's gradient has none on a GPU: an error before the model is built."""
    options = {"MODEL__ROI_BOX_HEAD__POOLER_TYPE": "ROIPool", "SOLVER__DETERMINISTIC": True}
    folder = write_images(tmp_path)
    with pytest.raises(ValueError, match="POOLER_TYPE 'ROIPool' has no .*set it to 'ROIAlignV2'"):
        Trainer(training_cfg(folder, tmp_path / "out", MODEL__DEVICE="cuda", **options))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    proposals = {**options, "MODEL__META_ARCHITECTURE": "ProposalNetwork"}
    Trainer(training_cfg(folder, tmp_path / "out", MODEL__DEVICE="cpu", **options))
    cfg = training_cfg(folder, tmp_path / "out", MODEL__DEVICE="cuda", **proposals)
    use_deterministic_algorithms(cfg)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("amp", [False, True])
def test_same_weights_on_a_gpu(deterministic, tmp_path, amp):
    folder = write_images(tmp_path / "data")
    options = {"MODEL__DEVICE": "cuda", "SOLVER__DETERMINISTIC": True, "SOLVER__AMP__ENABLED": amp}
    options["MODEL__ROI_BOX_HEAD__POOLER_TYPE"] = "ROIAlignV2"
    for output in ("one", "other"):
        train(training_cfg(folder, tmp_path / output, **options))
    assert_same_state(final_state(tmp_path / "one"), final_state(tmp_path / "other"))
