"""Each kind of picture, of each kind of model and dataset."""

import re

import demo
import pytest
import visualize
import yaml
from PIL import Image
from small_detectors import detector_cfg, trained
from small_training import CLASSES, write_images

from nrpn_d2.engine.command_line import run
from nrpn_d2.engine.visualize import Images


@pytest.fixture
def own(tmp_path, restored_catalogs):
    """The same images in VOC layout (with a difficult object) and YOLO's, as key and value."""
    folder = write_images(tmp_path / "voc")
    root = tmp_path / "yolo"
    for split in ("images", "labels"):
        (root / split / "val").mkdir(parents=True)
    Image.open(f"{folder}/JPEGImages/im0.png").save(root / "images/val/im0.png")
    (root / "labels/val/im0.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    data = {"path": str(root), "train": "images/val", "val": "images/val", "names": CLASSES}
    (root / "data.yaml").write_text(yaml.safe_dump(data))
    datasets = [["v", str(folder)], ["y", str(root / "data.yaml")]]
    return ["DATASETS.OWN", str(datasets), "DATASETS.VOC_CLASSES", str(CLASSES)]


def draw(what, config, *args, suffix=".png"):
    output = config[1].replace("config.yaml", f"drawn/picture{suffix}")
    run(visualize.main, visualize.parse_args([what, *config, "--output", output, *args]))
    with open(output, "rb") as f:
        return f.read()


def test_all_pictures(own, tmp_path, capsys):
    config, weights = trained(detector_cfg("fpn", DATASETS__TEST=("v_test",)), tmp_path / "run")
    args = ["--images", "1", *own, *weights]
    for what in visualize.WHAT:
        assert draw(what, config, *args).startswith(b"\x89PNG")
    assert b"<svg" in draw("proposals", config, "--dataset", "y_val", *args, suffix=".SVG")
    assert capsys.readouterr().out.count("Wrote") == 6
    draw("false-positives", config, "--worst", "--compare", config[1], weights[1], *args)
    assert re.search(r"; \d+ false positives in 5 images of v_test", capsys.readouterr().out)
    demo.draw(Images(config[1], [*own, *weights]), str(tmp_path / "demo.png"))
    assert Image.open(tmp_path / "demo.png").width > 1000


@pytest.mark.parametrize("what", ["anchors", "labels"])
def test_without_weights(what, own, tmp_path):
    config, _ = trained(detector_cfg("vgg", DATASETS__TEST=("v_test",)), tmp_path / "run")
    weights = ["MODEL.WEIGHTS", "missing.pth" if what == "anchors" else ""]
    assert draw(what, config, *own, *weights, suffix=".pdf").startswith(b"%PDF")


@pytest.mark.parametrize(
    "generator, sampler, as_sampler, message",
    [
        ("HardNegativeRPN", "Random", "Random", "NAME is 'Random', not 'NRPN' or 'OHEM'"),
        ("HardNegativeRPN", "Random", "NRPN", "model_final.pth has no weights of an nRPN"),
        ("RPN", "Random", "NRPN", "NAME is 'Random', not"),
        ("HardNegativeRPN", "OHEM", "OHEM", None),
    ],
)
def test_hard_negatives_without_an_nrpn(
    generator, sampler, as_sampler, message, own, tmp_path, monkeypatch
):
    monkeypatch.delenv("NRPN_D2_DEBUG", raising=False)
    key = "MODEL.RPN.NEGATIVE_SAMPLER.NAME"
    options = {key.replace(".", "__"): sampler, "MODEL__PROPOSAL_GENERATOR__NAME": generator}
    cfg = detector_cfg("vgg", DATASETS__TEST=("v_test",), **options)
    config, weights = trained(cfg, tmp_path / "run")
    args = [*own, *weights, key, as_sampler]
    if message:
        with pytest.raises(SystemExit, match=message) as error:
            draw("hard-negatives", config, *args)
        assert "\n" not in str(error.value)
    else:
        draw("hard-negatives", config, *args)
    draw("proposals", config, *args)


@pytest.mark.parametrize(
    "args, message",
    [
        (["--dataset", "w_test"], "--dataset names 'w_test'"),
        (["MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"], "is 'RRPN'; it must be"),
        (["DATASETS.TEST", "()"], "DATASETS.TEST is empty"),
    ],
)
def test_bad_input(args, message, own, tmp_path, monkeypatch):
    monkeypatch.delenv("NRPN_D2_DEBUG", raising=False)
    config, weights = trained(detector_cfg("vgg", DATASETS__TEST=("v_test",)), tmp_path / "run")
    with pytest.raises(SystemExit, match=message):
        draw("proposals", config, *own, *weights, *args)


@pytest.mark.parametrize("args", [["--images", "0"], ["--output", "a.gif"], ["--top", "0"]])
def test_bad_options(args, capsys):
    with pytest.raises(SystemExit):
        visualize.parse_args(["proposals", "--config-file", "c.yaml", *args])
    assert "must" in capsys.readouterr().err
