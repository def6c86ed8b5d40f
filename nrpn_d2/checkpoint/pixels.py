"""Channel order, mean and std that weights expect."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import CfgNode, get_cfg
from torchvision.models import GoogLeNet_Weights, Inception_V3_Weights, WeightsEnum

from .imagenet_weights import TORCHVISION, has_caffe_names, is_imagenet_vgg, torchvision_files


@dataclass(frozen=True)
class Pixels:
    """What a model sees: ``(image - mean) / std``, of an image of 0 to 255 in order ``format``."""

    format: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    KEYS = {"format": "INPUT.FORMAT", "mean": "MODEL.PIXEL_MEAN", "std": "MODEL.PIXEL_STD"}

    @classmethod
    def of_config(cls, cfg: CfgNode) -> "Pixels":
        return cls(cfg.INPUT.FORMAT, tuple(cfg.MODEL.PIXEL_MEAN), tuple(cfg.MODEL.PIXEL_STD))

    @classmethod
    def of_torchvision(cls, entry: WeightsEnum) -> "Pixels":
        if isinstance(entry, (GoogLeNet_Weights, Inception_V3_Weights)):
            # These networks change normalised pixels to x / 127.5 - 1 before their first layer
            return cls("RGB", (127.5,) * 3, (127.5,) * 3)
        transforms = entry.transforms()
        mean, std = ([round(255 * x, 3) for x in v] for v in (transforms.mean, transforms.std))
        return cls("RGB", tuple(mean), tuple(std))

    def differing_keys(self, other: "Pixels") -> dict[str, str]:
        """Map the name of each field that differs to its key in the config."""

        def differs(name: str) -> bool:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "format" or len(mine) != len(theirs):
                return mine != theirs
            return not np.allclose(mine, theirs, rtol=0, atol=0.01)

        return {name: key for name, key in self.KEYS.items() if differs(name)}


KINDS = {name: Pixels.of_torchvision(entry) for name, entry in TORCHVISION.items()}
KINDS["caffe"] = Pixels("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))


def pixels_of(checkpoint: dict[str, Any], path: str, kind: str = "") -> Pixels | None:
    """Return the pixels that the weights of a checkpoint expect; None if it does not say.

    Args:
        checkpoint: the content of ``path``, with "model", and "pixels" if this package saved it.
        kind: a name in ``KINDS``, for an ImageNet VGG only; "" to go by the names of its layers.

    Raises:
        ValueError: for an unknown ``kind``, or one for anything but an ImageNet VGG.
    """
    if kind and (kind not in KINDS or not is_imagenet_vgg(checkpoint["model"])):
        message = f"{path}?pixels={kind}: the pixels of an ImageNet VGG may be {', '.join(KINDS)}"
        raise ValueError(f"{message}; those of other weights cannot be chosen")
    if "pixels" in checkpoint:
        saved = checkpoint["pixels"]
        return Pixels(saved["format"], tuple(saved["mean"]), tuple(saved["std"]))
    if kind:
        return KINDS[kind]
    if has_caffe_names(checkpoint["model"]):
        return KINDS["caffe"]
    own_vgg = TORCHVISION["vgg16"] if is_imagenet_vgg(checkpoint["model"]) else None
    entry = torchvision_files().get(os.path.basename(path), own_vgg)
    return Pixels.of_torchvision(entry) if entry else None


def apply_pixels(cfg: CfgNode, pixels: Pixels, path: str) -> None:
    """Set the keys that have Detectron2's default values, in place; refuse others that differ."""
    current = Pixels.of_config(cfg)
    chosen = current.differing_keys(Pixels.of_config(get_cfg()))
    for name, key in pixels.differing_keys(current).items():
        if name not in chosen:
            value = getattr(pixels, name)
            cfg.merge_from_list([key, value])
            logging.getLogger(__name__).info("%s set to %s, as %s needs", key, value, path)
    raise_if_different(pixels, Pixels.of_config(cfg), path)


def raise_if_different(pixels: Pixels, current: Pixels, path: str) -> None:
    """Raise a ValueError naming the keys in which ``current`` is not what the weights expect."""
    wrong = [
        f"{key} is {getattr(current, name)}, the weights need {getattr(pixels, name)}"
        for name, key in pixels.differing_keys(current).items()
    ]
    if wrong:
        raise ValueError(f"The config contradicts the weights {path}: " + "; ".join(wrong))
