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
from imagenet_vgg import CLASSIFIER, FEATURES, saved, small_vgg
from small_models import small_cfg
from torchvision.models import VGG16_Weights
from torchvision.transforms.v2.functional import normalize

from nrpn_d2 import add_nrpn_config
from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer, set_pixels
from nrpn_d2.checkpoint.imagenet_weights import place_imagenet_vgg
from nrpn_d2.checkpoint.pixels import KINDS
from nrpn_d2.utils.safe_load import CheckpointError


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
    with pytest.raises(ValueError, match="has convolutions only(.|\n)*fc6.weight: no values"):
        NRPNCheckpointer(build_model(small_cfg())).load("torchvision://vgg16_caffe")
