"""Models out: stock Detectron2 and runtimes give what the model gave here."""

import subprocess
import sys

import export_model
import export_stock
import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from small_models import small_cfg

from nrpn_d2 import add_nrpn_config
from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer
from nrpn_d2.checkpoint.pixels import Pixels
from nrpn_d2.deploy.export import InferenceGraph, check_parity, load_exported, stock_config
from nrpn_d2.deploy.predictor import Predictor, load_config, load_model

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
for folder in sys.argv[1:]:
    cfg = get_cfg()
    cfg.merge_from_file(f"{folder}/config.yaml")
    predictor = DefaultPredictor(cfg)
    assert type(predictor.model.proposal_generator).__name__ == "RPN"
    found = predictor(numpy.load(f"{folder}/image.npy"))["instances"]
    numpy.savez(f"{folder}/found.npz", boxes=found.pred_boxes.tensor, scores=found.scores,
                classes=found.pred_classes)
assert not [name for name in sys.modules if name.startswith("nrpn_d2")]
"""


SPREAD = {
    "rpn_head.objectness_logits": 2,
    "rpn_head.anchor_deltas": 0.3,
    "box_predictor.cls_score": 2,
    "box_predictor.bbox_pred": 1,
}


@torch.no_grad()
def confident(model):
    """Give each output layer a spread, so that rounding cannot change which boxes are kept."""
    model.eval()
    for ending, spread in SPREAD.items():
        for layer in (m for name, m in model.named_modules() if name.endswith(ending)):
            seen = []
            hook = layer.register_forward_hook(lambda m, inputs, out: seen.append(out.flatten()))
            model([{"image": random_images((96, 128))[0]}])
            hook.remove()
            layer.weight *= spread / torch.cat(seen).std()
    return model


def trained(cfg, folder):
    """A config file and a checkpoint, as a training leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = confident(build_model(cfg))
    NRPNCheckpointer(model, str(folder), pixels=Pixels.of_config(cfg)).save("model_final")
    config = folder / "config.yaml"
    config.write_text(cfg.dump())
    return ["--config-file", str(config)], ["MODEL.WEIGHTS", str(folder / "model_final.pth")]


def detector_cfg(backbone, **overrides):
    overrides = {
        "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0,
        "INPUT__MIN_SIZE_TEST": 96,
        "INPUT__MAX_SIZE_TEST": 160,
        **overrides,
    }
    if backbone != "c4":
        return small_cfg(backbone, **overrides)
    cfg = small_cfg("fpn", **overrides)
    cfg.merge_from_list(
        [
            "MODEL.BACKBONE.NAME",
            "build_resnet_backbone",
            "MODEL.RESNETS.OUT_FEATURES",
            ["res4"],
            "MODEL.RPN.IN_FEATURES",
            ["res4"],
            "MODEL.ANCHOR_GENERATOR.SIZES",
            [[16, 32, 64]],
            "MODEL.ROI_HEADS.NAME",
            "StandardROIHeads",
            "MODEL.ROI_HEADS.IN_FEATURES",
            ["res4"],
        ]
    )
    return cfg


def run(monkeypatch, tool, *arguments):
    arguments = [str(a) for a in arguments]
    if hasattr(tool, "parse_args"):
        return tool.main(tool.parse_args(arguments))
    monkeypatch.setattr(sys, "argv", ["tool", *arguments])
    tool.main()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_stock_detectron2_gives_the_same(tmp_path, monkeypatch, one_thread):
    image = np.random.default_rng(0).integers(0, 256, (80, 110, 3), np.uint8)  # BGR
    expected = {}
    for backbone in ("fpn", "c4"):
        config, weights = trained(detector_cfg(backbone), tmp_path / f"{backbone}_trained")
        folder = tmp_path / backbone
        run(monkeypatch, export_stock, *config, "--output", folder, *weights)
        np.save(folder / "image.npy", image)
        cfg = load_config(config[1], weights)
        model = load_model(cfg)
        assert model.proposal_generator.negative_rpn is not None
        expected[folder] = Predictor(cfg, model).detect(image)
    command = [sys.executable, "-c", FROM_STOCK, *map(str, expected)]
    subprocess.run(command, cwd=tmp_path, check=True)
    for folder, instances in expected.items():
        found = np.load(folder / "found.npz")
        assert len(instances) > 10
        assert np.array_equal(found["boxes"], instances.pred_boxes.tensor)
        assert np.array_equal(found["scores"], instances.scores)
        assert np.array_equal(found["classes"], instances.pred_classes)
        state = torch.load(folder / "model.pth", weights_only=True)["model"]
        assert not [name for name in state if "negative_rpn" in name]


def test_vgg_needs_the_package_for_its_vgg_only(tmp_path, monkeypatch, capsys, one_thread):
    config, weights = trained(detector_cfg("vgg"), tmp_path / "trained")
    run(monkeypatch, export_stock, *config, "--output", tmp_path / "out", *weights)
    assert "add_nrpn_config" in capsys.readouterr().out
    written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert written["MODEL"]["VGG"]["WIDTHS"] == [8, 8, 16, 16] and "NRPN" not in written["MODEL"]
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.merge_from_file(str(tmp_path / "out" / "config.yaml"))
    model = load_model(cfg)
    assert type(model.proposal_generator) is RPN
    image = np.random.default_rng(0).integers(0, 256, (80, 110, 3), np.uint8)
    original = load_config(config[1], weights)
    expected = Predictor(original, load_model(original)).detect(image)
    found = Predictor(cfg, model).detect(image)
    assert len(expected) > 10 and torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)


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


def test_incomplete_checkpoint_is_not_exported(tmp_path):
    config, weights = trained(detector_cfg("vgg"), tmp_path)
    checkpoint = torch.load(weights[1], weights_only=True)
    del checkpoint["model"]["proposal_generator.rpn_head.conv.bias"]
    del checkpoint["model"]["proposal_generator.negative_rpn.head.conv.bias"]  # not needed
    checkpoint["model"]["surplus"] = torch.zeros(1)
    torch.save(checkpoint, weights[1])
    with pytest.raises(ValueError) as e:
        load_model(load_config(config[1], weights))
    listed = str(e.value).split("\n  ")[1:]
    assert sorted(listed) == [
        "proposal_generator.rpn_head.conv.bias: not in the checkpoint",
        "surplus: not in the model",
    ]
    weights = ["--", "MODEL.META_ARCHITECTURE", "ProposalNetwork", *weights]
    with pytest.raises(ValueError) as e:  # proposals need nothing of the detector's heads
        load_model(load_config(config[1], weights))
    assert "roi_heads" not in str(e.value) and "surplus" in str(e.value)
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
        load_model(load_config(config[1]))


def random_images(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=generator).float() for size in sizes]


@pytest.mark.filterwarnings("ignore")  # the tracers' own
@pytest.mark.parametrize("file_format", ["model.ts", "model.onnx"])
@pytest.mark.parametrize(
    "backbone, meta_architecture",
    [
        ("vgg", "ProposalNetwork"),
        ("vgg", "GeneralizedRCNN"),
        ("fpn", "GeneralizedRCNN"),
    ],
)
def test_runtimes_give_the_same(file_format, backbone, meta_architecture, tmp_path):
    cfg = detector_cfg(backbone, MODEL__META_ARCHITECTURE=meta_architecture)
    torch.manual_seed(0)
    model = confident(build_model(cfg))
    images = random_images((96, 128), (160, 120), (77, 99))
    graph, path = InferenceGraph(model, images[0]), str(tmp_path / file_format)
    if file_format == "model.onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        graph.to_onnx(path)
    else:
        graph.to_torchscript(path)
        weights = torch.jit.load(path).state_dict()
        assert weights and not [name for name in weights if "negative_rpn" in name]
    assert model.proposal_generator.negative_rpn is not None  # the model keeps it
    lines = check_parity(graph, load_exported(path), images)
    assert len(lines) == 3 and not any(": 0 boxes" in line for line in lines)


@pytest.mark.parametrize(
    "output, change, message",
    [
        ("proposal_boxes", lambda x: x + 0.02, "boxes differ by 0.02"),
        ("objectness_logits", lambda x: x + 0.01, "scores differ"),
        ("proposal_boxes", lambda x: x[1:], "boxes instead of"),
    ],
)
def test_parity_fails(output, change, message):
    model = confident(build_model(small_cfg(meta_architecture="ProposalNetwork")))
    images = random_images((96, 128))
    graph = InferenceGraph(model, images[0])

    def exported(image):
        outputs = dict(zip(graph.names, (x.numpy() for x in graph(image))))
        return list({**outputs, output: change(outputs[output])}.values())

    with pytest.raises(ValueError, match=f"96 x 128: .*{message}"):
        check_parity(graph, exported, images)


@pytest.mark.filterwarnings("ignore")
def test_export_tool(tmp_path, monkeypatch, capsys):
    config, weights = trained(detector_cfg("vgg"), tmp_path)
    run(monkeypatch, export_model, *config, "--output", tmp_path / "out", *weights)
    printed = capsys.readouterr().out
    assert "model.ts: image -> pred_boxes, pred_classes, scores, image_size" in printed
    assert printed.count("coordinates differ by at most") == 3

    def cannot(*args, **kwargs):
        raise NotImplementedError("aten::new_thing")

    monkeypatch.setattr(torch.onnx, "export", cannot)
    with pytest.raises(SystemExit, match="cannot export.*onnx.*aten::new_thing.*--format torchscr"):
        run(monkeypatch, export_model, *config, "--format", "onnx", "--output", tmp_path, *weights)
