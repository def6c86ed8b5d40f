"""tools/predict.py: pictures and COCO results of images, folders and globs."""

import json
import sys

import numpy as np
import predict
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from small_models import small_cfg

from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer
from nrpn_d2.checkpoint.pixels import Pixels
from nrpn_d2.deploy.predictor import Predictor, load_config, load_model


@pytest.fixture(scope="module", params=["GeneralizedRCNN", "ProposalNetwork"])
def arguments(request, tmp_path_factory):
    """Those of a small model."""
    folder = tmp_path_factory.mktemp("model")
    cfg = small_cfg(
        meta_architecture=request.param,
        INPUT__MIN_SIZE_TEST=64,
        MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0,
        TEST__DETECTIONS_PER_IMAGE=7,
    )
    cfg.DATASETS.VOC_CLASSES = ["red", "white", "platelet"]
    torch.manual_seed(0)
    NRPNCheckpointer(build_model(cfg), str(folder), pixels=Pixels.of_config(cfg)).save("model")
    (folder / "config.yaml").write_text(cfg.dump())
    return str(folder / "config.yaml"), ["MODEL.WEIGHTS", str(folder / "model.pth")]


@pytest.fixture
def images(tmp_path):
    """Two images of 60 x 80 pixels and one that is none, in a folder with something else."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.png", "below/a.bmp"):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(monkeypatch, arguments, *flags):
    """The exit code, or the message that is one."""
    config, weights = arguments
    command = ["predict", "--config-file", config, *map(str, flags), *weights]
    monkeypatch.setattr(sys, "argv", command)
    try:
        predict.main()
    except SystemExit as e:
        return e.code
    return 0


def is_detector(arguments):
    return load_config(*arguments).MODEL.META_ARCHITECTURE == "GeneralizedRCNN"


def test_folder(arguments, images, tmp_path, monkeypatch):
    proposals = [] if is_detector(arguments) else ["--proposals"]
    code = run(monkeypatch, arguments, *proposals, "--input", images, "--output", tmp_path / "out")
    assert code == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {r["image_id"] for r in results} == {"a.jpg", "b.png"}
    # the same as the model's own, as x, y, width and height
    cfg = load_config(*arguments)
    predictor = Predictor(cfg, load_model(cfg))
    image = np.array(Image.open(images / "b.png"))[:, :, ::-1]  # the model's format is BGR
    if proposals:
        found = predictor.propose(image)
        boxes, scores = found.proposal_boxes.tensor, found.objectness_logits.sigmoid()
    else:
        found = predictor.detect(image)
        boxes, scores = found.pred_boxes.tensor, found.scores
    of_b = [r for r in results if r["image_id"] == "b.png"]
    assert len(of_b) == len(found) > 5
    xywh = np.array([r["bbox"] for r in of_b])
    assert np.allclose(xywh[:, :2] + xywh[:, 2:], boxes[:, 2:], atol=1e-4)
    assert np.allclose(xywh[:, :2], boxes[:, :2], atol=1e-4)
    assert np.allclose([r["score"] for r in of_b], scores)
    classes = [0] * len(found) if proposals else found.pred_classes.tolist()
    assert [r["category_id"] for r in of_b] == classes
    for name in ("a.jpg", "b.png"):
        assert Image.open(tmp_path / "out" / name).size == (80, 60)


def test_pictures_show_boxes(arguments, images, tmp_path, monkeypatch):
    """With a score that none reaches the picture is the image, else it is not."""
    for name, flags, is_plain in (("none", ["--min-score", 1.1], True), ("all", [], False)):
        run(
            monkeypatch,
            arguments,
            "--proposals",
            "--input",
            images / "b.png",
            "--output",
            tmp_path / name,
            *flags,
        )
        picture = np.array(Image.open(tmp_path / name / "b.png")).astype(int)
        changed = np.abs(picture - np.array(Image.open(images / "b.png"))).max(axis=2) > 60
        assert (changed.mean() < 0.01) == is_plain


def test_glob_keeps_folders_apart(arguments, images, tmp_path, monkeypatch):
    run(
        monkeypatch,
        arguments,
        "--proposals",
        "--input",
        images / "**" / "a.*",
        "--output",
        tmp_path / "out",
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {r["image_id"] for r in results} == {"a.jpg", "below/a.bmp"}
    assert (tmp_path / "out" / "a.jpg").exists()
    assert (tmp_path / "out" / "below" / "a.bmp.png").exists()


def test_unreadable_images_are_reported(arguments, images, tmp_path, monkeypatch, capsys):
    whole = (images / "a.jpg").read_bytes()
    (images / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "no.png").write_text("no image")
    code = run(
        monkeypatch, arguments, "--proposals", "--input", images, "--output", tmp_path / "out"
    )
    assert "2 images could not be read" in code and "half.jpg" in code and "no.png" in code
    assert "no.png cannot be read" in capsys.readouterr().err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {r["image_id"] for r in results} == {"a.jpg", "b.png"}


def test_mistakes(arguments, images, tmp_path, monkeypatch):
    before = (images / "a.jpg").read_bytes()
    flags = ["--proposals", "--input", images, "--output"]
    assert "would replace them" in run(monkeypatch, arguments, *flags, images)
    assert (images / "a.jpg").read_bytes() == before
    flags = ["--proposals", "--output", tmp_path / "out", "--input"]
    assert "there is no image" in run(monkeypatch, arguments, *flags, tmp_path / "*.nothing")
    if not is_detector(arguments):
        code = run(monkeypatch, arguments, "--input", images, "--output", tmp_path / "out")
        assert "--proposals" in code
