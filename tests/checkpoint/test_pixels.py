"""The pixels that weights were trained with: set by the weights, contradicted with an error."""

import pytest
from detectron2.modeling import build_model
from imagenet_vgg import saved, small_vgg
from small_models import small_cfg

from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer, set_pixels
from nrpn_d2.checkpoint.pixels import Pixels
from nrpn_d2.utils.safe_load import CheckpointError


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
