"""ImageNet VGG-16 into the backbone, its copy in the nRPN, and the box head."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from small_models import small_cfg
from torchvision.models import VGG16_Weights
from torchvision.transforms.v2.functional import normalize

from nrpn_d2 import add_nrpn_config
from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer, set_pixels
from nrpn_d2.checkpoint.imagenet_weights import place_imagenet_vgg
from nrpn_d2.checkpoint.pixels import KINDS, Pixels
from nrpn_d2.utils.safe_load import CheckpointError

# small_cfg's VGG: a convolution, ReLU and pooling for each of four stages
FEATURES = {
    "features.0": "conv1_1",
    "features.3": "conv2_1",
    "features.6": "conv3_1",
    "features.9": "conv4_1",
}
CLASSIFIER = {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
SHAPES = {
    "conv1_1": (8, 3, 3, 3),
    "conv2_1": (8, 8, 3, 3),
    "conv3_1": (16, 8, 3, 3),
    "conv4_1": (16, 16, 3, 3),
    "fc6": (32, 16 * 49),
    "fc7": (32, 32),
    "fc8": (10, 32),
}


def small_vgg(caffe=False):
    """Random weights of a torchvision VGG (or of a Caffe one) that fits small_cfg's model."""
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, layer in {**FEATURES, **CLASSIFIER}.items():
        name = layer if caffe else name
        weights[f"{name}.weight"] = torch.randn(SHAPES[layer], generator=generator)
        weights[f"{name}.bias"] = torch.randn(SHAPES[layer][0], generator=generator)
    return weights


def saved(weights, path):
    torch.save(weights, path)
    return str(path)


def assert_filled(model, weights):
    """That the model holds the weights (torchvision's names), the nRPN's backbone included."""
    state = model.state_dict()
    backbones = ("backbone", "proposal_generator.negative_rpn.backbone")
    places = {theirs: [f"{b}.{layer}" for b in backbones] for theirs, layer in FEATURES.items()}
    places["classifier.0"] = ["roi_heads.box_head.fc6"]
    places["classifier.3"] = ["roi_heads.box_head.fc7"]
    for theirs, ours in places.items():
        for name, kind in itertools.product(ours, ("weight", "bias")):
            assert torch.equal(state[f"{name}.{kind}"], weights[f"{theirs}.{kind}"])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch.hub, from which nothing is downloaded."""

    def no_network(*args, **kwargs):
        raise AssertionError(f"a test must not download {args}")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def vgg16_model(pixels):
    """The paper's detector around VGG-16, with these pixels."""
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.merge_from_file(Path(__file__).parents[2] / "configs/voc_nrpn_vgg16.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.NRPN.SHARE_FEATURES = "cpu", True
    cfg.INPUT.FORMAT = pixels.format
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(pixels.mean), list(pixels.std)
    return build_model(cfg).eval()


@torch.no_grad()
def test_vgg16_gives_torchvisions_features():
    """A whole VGG-16, from an image to conv5_3 and fc7, for torchvision's and Caffe's weights.

    A region of 208 x 208 pixels is 14 x 14 cells to RoI pooling, both ends included, so that its
    7 x 7 bins are torchvision's fifth max-pooling of 2 x 2 on the 224 x 224 image.
    """
    theirs = torchvision.models.vgg16(weights=None).eval()
    layers = list(theirs.features)
    convs = [i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.Conv2d)]
    names = [f"conv{s}_{j}" for s, n in enumerate((2, 2, 3, 3, 3), 1) for j in range(1, n + 1)]
    to_caffe = dict(zip((f"features.{i}" for i in convs), names), **CLASSIFIER)
    rgb = torch.randint(0, 256, (3, 224, 224), generator=torch.Generator().manual_seed(0))
    vgg16 = VGG16_Weights.IMAGENET1K_V1.transforms()
    model = vgg16_model(KINDS["vgg16"])
    for kind in ("vgg16", "caffe"):
        weights = theirs.state_dict()
        if kind == "vgg16":
            image, seen = rgb, normalize(rgb / 255, vgg16.mean, vgg16.std)
        else:
            weights = {
                f"{to_caffe[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v
                for k, v in weights.items()
            }
            image = rgb.flip(0)
            seen = image - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
            # convolutions are linear in this range of pixels: keep features near 1
            seen, weights["conv1_1.weight"] = seen / 50, weights["conv1_1.weight"] / 50
            model.pixel_mean.copy_(torch.tensor(KINDS[kind].mean).view(3, 1, 1))
            model.pixel_std.copy_(torch.tensor(KINDS[kind].std).view(3, 1, 1))
        place_imagenet_vgg(model, weights)
        model.load_state_dict(weights, strict=False)
        features = model.backbone(model.preprocess_image([{"image": image.float()}]).tensor)
        expected = theirs.features[:-1](seen[None])
        assert features["conv5"].shape == expected.shape == (1, 512, 14, 14)
        assert expected.abs().max() > 0.01
        assert (features["conv5"] - expected).abs().max() < 1e-5
        pooled = model.roi_heads.box_pooler(
            [features["conv5"]], [Boxes(torch.tensor([[0.0, 0, 208, 208]]))]
        )
        fc7 = theirs.classifier[:5](theirs.features(seen[None]).flatten(1))
        assert fc7.abs().max() > 0.01
        assert (model.roi_heads.box_head(pooled) - fc7).abs().max() < 1e-5


@pytest.mark.parametrize("checkpointer", [NRPNCheckpointer, DetectionCheckpointer])
def test_torchvision_entry_from_the_cache(checkpointer, hub):
    """With Detectron2's own checkpointer, too: no key of the file is lost on the way."""
    weights = small_vgg()
    saved(weights, hub / "vgg16-397923af.pth")
    model = build_model(small_cfg())
    checkpointer(model).load("torchvision://vgg16")
    assert_filled(model, weights)


def test_download_goes_to_the_cache_and_is_verified(hub, monkeypatch):
    calls = []

    def download(url, path, hash_prefix):
        calls.append((url, hash_prefix))
        torch.save(small_vgg(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        model = build_model(small_cfg())
        NRPNCheckpointer(model).load("torchvision://vgg16")
        assert_filled(model, small_vgg())
    assert calls == [(VGG16_Weights.IMAGENET1K_V1.url, "397923af")]  # once


@pytest.mark.parametrize("name", ["vgg91", "fasterrcnn_resnet50_fpn"])
def test_unknown_entry(name):
    cfg = small_cfg(MODEL__WEIGHTS=f"torchvision://{name}")
    for load in (lambda: set_pixels(cfg), lambda: NRPNCheckpointer(None).load(cfg.MODEL.WEIGHTS)):
        with pytest.raises(
            ValueError, match=f"{name}.*torchvision://vgg16, torchvision://vgg16_caf"
        ):
            load()


def as_pycaffe(weights):
    layers = {name.rpartition(".")[0] for name in weights}
    return {k: [weights[f"{k}.weight"].numpy(), weights[f"{k}.bias"].numpy()] for k in layers}


def as_detectron(weights):
    short = {k: k.replace(".weight", "_w").replace(".bias", "_b") for k in weights}
    blobs = {short[k]: v.numpy() for k, v in weights.items()}
    return {"blobs": {**blobs, "conv1_1_w_momentum": np.zeros(3)}}


def old_shapes(weights):
    """Caffe once stored fc6 as (1, 1, 4096, 25088)."""
    is_old = {k: k.startswith("fc") and k.endswith("weight") for k in weights}
    return {k: v[None, None] if is_old[k] else v for k, v in weights.items()}


@pytest.mark.parametrize("write", [dict, old_shapes, as_pycaffe, as_detectron])
def test_caffe_files(write, tmp_path):
    content, path = write(small_vgg(caffe=True)), tmp_path / "vgg.pkl"
    if write in (dict, old_shapes):
        path = tmp_path / "vgg.pth"
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    model = build_model(small_cfg())
    NRPNCheckpointer(model).load(str(path))
    assert_filled(model, small_vgg())


def test_every_key_without_a_place_is_listed(tmp_path):
    weights = small_vgg()
    del weights["features.3.bias"], weights["classifier.3.weight"]
    weights["features.12.weight"] = torch.zeros(16, 16, 3, 3)  # a conv5_1
    weights["classifier.0.weight"] = torch.zeros(32, 5)
    weights["features.9.weight"][0, 0, 0, 0] = float("inf")
    path = saved(weights, tmp_path / "vgg.pth")
    for checkpointer in (NRPNCheckpointer, DetectionCheckpointer):
        model = build_model(small_cfg())
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(ValueError) as e:
            checkpointer(model).load(path)
        for problem in (
            "backbone.conv2_1.bias: no values",
            "roi_heads.box_head.fc7.weight: no values",
            "features.12.weight in the file: no place",
            "roi_heads.box_head.fc6.weight: (32, 5) in the file, (32, 784) in the model",
            "backbone.conv4_1.weight: values in the file that are not finite",
        ):
            assert problem in str(e.value)
        assert len(str(e.value).split("\n  ")) == 1 + 5  # nothing else
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_proposal_network_needs_no_classifier():
    model = build_model(small_cfg(meta_architecture="ProposalNetwork"))
    weights = small_vgg()
    place_imagenet_vgg(model, weights)
    parameters = [(layer, kind) for layer in FEATURES.values() for kind in ("weight", "bias")]
    assert set(weights) == {f"backbone.{layer}.{kind}" for layer, kind in parameters}


def test_model_without_a_vgg(tmp_path):
    with pytest.raises(CheckpointError, match="another MODEL.BACKBONE.NAME"):
        NRPNCheckpointer(build_model(small_cfg("fpn"))).load(saved(small_vgg(), tmp_path / "v.pth"))


def test_features_only(hub):
    """IMAGENET1K_FEATURES has a classifier of NaN: for a box head with fc6 that is an error."""
    weights = small_vgg()
    for name in weights:
        if name.startswith("classifier"):
            weights[name].fill_(float("nan"))
    saved(weights, hub / "vgg16_features-amdegroot-88682ab5.pth")
    model = build_model(small_cfg(meta_architecture="ProposalNetwork"))
    NRPNCheckpointer(model).load("torchvision://vgg16_caffe")
    assert torch.equal(model.backbone.conv1_1.weight, weights["features.0.weight"])
    with pytest.raises(ValueError, match="fc6.weight: no values(.|\n)*has convolutions only"):
        NRPNCheckpointer(build_model(small_cfg())).load("torchvision://vgg16_caffe")


# ---- pixels


def pixels_of(cfg):
    return cfg.INPUT.FORMAT, tuple(cfg.MODEL.PIXEL_MEAN), tuple(cfg.MODEL.PIXEL_STD)


RGB = ("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
RGB_DEVIATION_1 = ("RGB", (122.999, 116.999, 103.999), (1.0, 1.0, 1.0))
CAFFE = ("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "name, caffe, expected",
    [
        ("torchvision://vgg16", None, RGB),
        ("torchvision://vgg16_caffe", None, RGB_DEVIATION_1),
        ("vgg.pth", True, CAFFE),
        ("vgg.pth", False, RGB),
        ("vgg.pth?pixels=caffe", False, CAFFE),
        ("vgg16_features-amdegroot-88682ab5.pth", False, RGB_DEVIATION_1),
    ],
)
def test_weights_set_the_pixels(name, caffe, expected, tmp_path):
    """Without a download: torchvision's entries say themselves."""
    if caffe is not None:
        saved(small_vgg(caffe), tmp_path / name.partition("?")[0])
        name = str(tmp_path / name)
    cfg = small_cfg(MODEL__WEIGHTS=name)
    set_pixels(cfg)
    assert pixels_of(cfg) == expected
    set_pixels(cfg)  # agreement is no contradiction
    if caffe is not None:
        NRPNCheckpointer(build_model(cfg), pixels=Pixels.of_config(cfg)).load(name)


@pytest.mark.parametrize(
    "key, value",
    [
        ("INPUT.FORMAT", "RGB"),
        ("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53]),
        ("MODEL.PIXEL_STD", [58.395, 57.12, 57.375]),
    ],
)
def test_contradiction(key, value, tmp_path):
    path = saved(small_vgg(caffe=True), tmp_path / "vgg.pth")
    cfg = small_cfg(MODEL__WEIGHTS=path)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=f"{key} is") as e:
        set_pixels(cfg)
    others = {"INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"} - {key}
    assert not any(other in str(e.value) for other in others) and path in str(e.value)


def test_pixels_go_with_the_checkpoint(tmp_path):
    """Of a model trained from torchvision's weights, evaluated with a config that says nothing."""
    cfg = small_cfg(MODEL__WEIGHTS="torchvision://vgg16")
    set_pixels(cfg)
    trained = NRPNCheckpointer(build_model(cfg), str(tmp_path), pixels=Pixels.of_config(cfg))
    trained.save("model_final")
    path = str(tmp_path / "model_final.pth")
    cfg = small_cfg(MODEL__WEIGHTS=path)
    with pytest.raises(ValueError, match="INPUT.FORMAT is BGR.*PIXEL_MEAN.*PIXEL_STD"):
        NRPNCheckpointer(build_model(cfg), pixels=Pixels.of_config(cfg)).load(path)
    set_pixels(cfg)
    assert pixels_of(cfg) == RGB
    NRPNCheckpointer(build_model(cfg), pixels=Pixels.of_config(cfg)).load(path)


def test_pixels_cannot_be_chosen_for_other_weights(tmp_path):
    NRPNCheckpointer(build_model(small_cfg()), str(tmp_path)).save("model")
    for name in ("model.pth?pixels=caffe", "model.pth?pixel=caffe"):
        with pytest.raises(ValueError, match=r"\?pixel"):
            set_pixels(small_cfg(MODEL__WEIGHTS=str(tmp_path / name)))


def test_weights_that_do_not_say_leave_the_config(tmp_path):
    path = saved({"model": build_model(small_cfg()).state_dict()}, tmp_path / "model.pth")
    for weights in ("", path):
        cfg = small_cfg(MODEL__WEIGHTS=weights)
        set_pixels(cfg)
        assert cfg == small_cfg(MODEL__WEIGHTS=weights)


def test_missing_file():
    with pytest.raises((CheckpointError, OSError), match="no_such.pth"):
        set_pixels(small_cfg(MODEL__WEIGHTS="no_such.pth"))
