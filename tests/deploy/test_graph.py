"""TorchScript and ONNX give what the model gave, and the check of it misses nothing."""

import export_model
import pytest
import torch
from small_detectors import confident, detector_cfg, noise, trained

from nrpn_d2.deploy.graph import InferenceGraph, check_parity, load_exported

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TorchScript's days are numbered


@pytest.mark.parametrize(
    "kind, file_format, added",
    [
        ("proposals", "model.ts", None),
        ("proposals", "model.onnx", None),
        ("vgg", "model.ts", []),
        ("vgg", "model.onnx", []),
        ("cascade", "model.ts", []),
        ("cascade", "model.onnx", []),
        ("mask", "model.ts", ["pred_masks"]),
        ("mask", "model.onnx", ["pred_masks"]),
        ("keypoint", "model.ts", ["pred_keypoint_heatmaps", "pred_keypoints"]),
    ],
)
def test_runtimes_give_the_same(kind, file_format, added, tmp_path):
    """Every output by its name: the masks are the masks, the scores the scores."""
    if added is None:
        model = confident(detector_cfg("vgg", MODEL__META_ARCHITECTURE="ProposalNetwork"))
        names = ["objectness_logits", "proposal_boxes", "image_size"]
    else:
        model = confident(detector_cfg(kind))
        names = ["pred_boxes", "pred_classes", *added, "scores", "image_size"]
    images = noise((96, 128), (160, 120), (77, 99))
    graph, path = InferenceGraph(model, images[0]), str(tmp_path / file_format)
    assert graph.names == names
    if file_format == "model.onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        graph.to_onnx(path)
    else:
        graph.to_torchscript(path)
        weights = torch.jit.load(path).state_dict()
        assert weights and not [name for name in weights if "negative_rpn" in name]
    assert model.proposal_generator.negative_rpn is not None  # the model keeps it
    lines = check_parity(graph, load_exported(path, graph.names), images)
    assert len(lines) == 3 and not any(": 0 boxes" in line for line in lines)
    output = load_exported(path, graph.names)(images[1])
    assert output["image_size"].tolist() == [160, 120]
    if "pred_masks" in names:
        assert output["pred_masks"].shape[1:] == (1, 28, 28) and output["scores"].ndim == 1


@pytest.mark.parametrize(
    "output, change, message",
    [
        ("pred_boxes", lambda x: x + 0.02, "pred_boxes 0.02 pixels; the limit is 0.01"),
        ("scores", lambda x: x + 0.01, "scores 0.01"),
        ("pred_classes", lambda x: (x + 1) % 3, "pred_classes"),
        ("pred_masks", lambda x: x + 0.01, "pred_masks 0.01"),
        ("pred_masks", lambda x: x * float("nan"), "pred_masks nan"),
        ("image_size", lambda x: x + 1, "image_size 1"),
        ("pred_boxes", lambda x: x[1:], r"pred_boxes has shape \(\d+, 4\) instead"),
    ],
)
def test_parity_fails(output, change, message, masks):
    def exported(image):
        outputs = {name: value.numpy() for name, value in masks(image).items()}
        return {**outputs, output: change(outputs[output])}

    with pytest.raises(ValueError, match=f"96 x 128: .*{message}"):
        check_parity(masks, exported, [masks.image])


@pytest.fixture(scope="module")
def masks():
    return InferenceGraph(confident(detector_cfg("mask")), noise((96, 128))[0])


def test_parity_fails_where_names_are_exchanged(masks):
    exchanged = {"pred_masks": "scores", "scores": "pred_masks"}
    with pytest.raises(ValueError, match="pred_masks has shape"):
        check_parity(
            masks,
            lambda image: {exchanged.get(k, k): v.numpy() for k, v in masks(image).items()},
            [masks.image],
        )


def run(*arguments):
    export_model.main(export_model.parse_args([*map(str, arguments)]))


def test_tool(tmp_path, monkeypatch, capsys):
    config, weights = trained(detector_cfg("vgg"), tmp_path)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="a.png: cannot be read"):
        run(*config, "--output", tmp_path / "out", "--images", tmp_path / "a.png", *weights)
    run(*config, "--output", tmp_path / "out", *weights)
    printed = capsys.readouterr().out
    assert "model.ts: image -> pred_boxes, pred_classes, scores, image_size" in printed
    assert printed.count("largest differences: pred_boxes") == 3

    def cannot(*args, **kwargs):
        raise NotImplementedError("aten::new_thing\nand its graph")

    monkeypatch.setattr(torch.onnx, "export", cannot)
    onnx = ["--format", "onnx", "--output", tmp_path]
    with pytest.raises(SystemExit, match=r"to onnx.*aten::new_thing\. Try --format torchscript"):
        run(*config, *onnx, *weights)


def test_keypoints_are_refused_before_torch_fails(tmp_path):
    graph = InferenceGraph(confident(detector_cfg("keypoint")), noise((96, 128))[0])
    with pytest.raises(NotImplementedError, match="keypoints in a loop"):
        graph.to_onnx(str(tmp_path / "model.onnx"))
    assert not list(tmp_path.iterdir())
