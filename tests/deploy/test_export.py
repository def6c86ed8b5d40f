"""Stock Detectron2 gives what the model gave here."""

import subprocess
import sys

import export_stock
import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.modeling.proposal_generator import RPN
from small_detectors import detector_cfg, trained
from small_models import small_cfg

from nrpn_d2 import add_nrpn_config
from nrpn_d2.checkpoint.trained_model import load_model
from nrpn_d2.deploy.export import stock_config
from nrpn_d2.deploy.predictor import Predictor
from nrpn_d2.engine.defaults import build_cfg

FROM_STOCK = """
import sys

class Absent:
    def find_spec(self, name, *args):
        if name.split(".")[0] == "nrpn_d2":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import numpy, torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor

torch.set_num_threads(1)
cfg = get_cfg()
cfg.merge_from_file("config.yaml")
predictor = DefaultPredictor(cfg)
assert type(predictor.model.proposal_generator).__name__ == "RPN"
found = predictor(numpy.load("image.npy"))["instances"]
numpy.savez("found.npz", boxes=found.pred_boxes.tensor, scores=found.scores,
            classes=found.pred_classes)
assert not [name for name in sys.modules if name.startswith("nrpn_d2")]
"""


def export(config, weights, folder):
    export_stock.main(export_stock.parse_args([*config, "--output", str(folder), *weights]))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_stock_detectron2_gives_the_same(tmp_path, one_thread):
    config, weights = trained(detector_cfg("fpn"), tmp_path / "trained")
    folder = tmp_path / "stock"
    export(config, weights, folder)
    image = np.random.default_rng(0).integers(0, 256, (80, 110, 3), np.uint8)  # BGR
    np.save(folder / "image.npy", image)
    subprocess.run([sys.executable, "-c", FROM_STOCK], cwd=folder, check=True)
    cfg = build_cfg(config[1], weights)
    model = load_model(cfg)
    assert model.proposal_generator.negative_rpn is not None
    predictor = Predictor(cfg, model)
    expected = predictor.detect_batch([predictor.inputs(image)])[0]
    found = np.load(folder / "found.npz")
    assert len(expected) > 10
    assert np.array_equal(found["boxes"], expected.pred_boxes.tensor)
    assert np.array_equal(found["scores"], expected.scores)
    assert np.array_equal(found["classes"], expected.pred_classes)
    state = torch.load(folder / "model.pth", weights_only=True)["model"]
    assert not [name for name in state if "negative_rpn" in name]


def test_vgg_needs_the_package_for_its_vgg_only(tmp_path, capsys, monkeypatch):
    config, weights = trained(detector_cfg("vgg"), tmp_path / "trained")
    monkeypatch.chdir(tmp_path)
    export(config, weights, "out")
    monkeypatch.chdir("out")  # the config works in any folder
    assert "add_nrpn_config" in capsys.readouterr().out
    written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert written["MODEL"]["VGG"]["WIDTHS"] == [8, 8, 16, 16] and "NRPN" not in written["MODEL"]
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.merge_from_file(str(tmp_path / "out" / "config.yaml"))
    assert type(load_model(cfg).proposal_generator) is RPN


def test_stock_config():
    cfg = small_cfg(
        "fpn",
        SOLVER__CHECKPOINTS_TO_KEEP=7,
        SOLVER__MAX_ITER=11,
        DATASETS__TEST=("a", "b"),
        MODEL__NRPN__WARMUP_ITERS=3,
    )
    stock = get_cfg()
    stock.merge_from_other_cfg(stock_config(cfg))  # fails on an unknown key
    assert stock.MODEL.PROPOSAL_GENERATOR.NAME == "RPN"
    assert stock.SOLVER.MAX_ITER == 11 and stock.DATASETS.TEST == ("a", "b")
    assert stock.MODEL.RESNETS == cfg.MODEL.RESNETS and stock.INPUT == cfg.INPUT
    assert "CHECKPOINTS_TO_KEEP" not in stock.SOLVER
    assert "FLOAT32_PRECISION" not in stock_config(cfg)  # what has its default is left out
    assert cfg.MODEL.PROPOSAL_GENERATOR.NAME == "HardNegativeRPN"  # the argument stays


def test_a_network_of_torchvision_stays_in_the_stock_config():
    cfg = small_cfg(MODEL__BACKBONE__NAME="build_torchvision_fpn_backbone")
    cfg.MODEL.TORCHVISION.NAME = "resnet18"
    other = get_cfg()
    add_nrpn_config(other)
    other.merge_from_other_cfg(stock_config(cfg))
    assert other.MODEL.TORCHVISION == cfg.MODEL.TORCHVISION


def test_incomplete_checkpoint_is_not_exported(tmp_path):
    config, weights = trained(detector_cfg("vgg"), tmp_path)
    checkpoint = torch.load(weights[1], weights_only=True)
    del checkpoint["model"]["proposal_generator.rpn_head.conv.bias"]
    del checkpoint["model"]["proposal_generator.negative_rpn.head.conv.bias"]  # not needed
    checkpoint["model"]["surplus"] = torch.zeros(1)
    torch.save(checkpoint, weights[1])
    with pytest.raises(ValueError) as e:
        load_model(build_cfg(config[1], weights))
    listed = str(e.value).split("\n  ")[1:]
    assert sorted(listed) == [
        "proposal_generator.rpn_head.conv.bias: not in the checkpoint",
        "surplus: not in the model",
    ]
    weights = ["--", "MODEL.META_ARCHITECTURE", "ProposalNetwork", *weights]
    with pytest.raises(ValueError) as e:  # proposals need nothing of the detector's heads
        load_model(build_cfg(config[1], weights))
    assert "roi_heads" not in str(e.value) and "surplus" in str(e.value)
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
        load_model(build_cfg(config[1]))
