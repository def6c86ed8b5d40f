"""ImageNet VGG-16 into the VGG backbone, its copy in the nRPN, and fc6/fc7 of the box head.

What ``MODEL.WEIGHTS`` may be, and the pixels that the weights were trained with:

    torchvision://vgg16        torchvision's own training    RGB, its mean and deviation
    torchvision://vgg16_caffe  Caffe's convolutions, no fc   RGB, its mean, deviation 1
    FILE with Caffe's names    conv1_1 ... fc7               BGR, Caffe's mean, deviation 1
    FILE with torchvision's    features.0 ... classifier.3   those of vgg16
    FILE?pixels=caffe          the same, ported from Caffe   BGR, Caffe's mean, deviation 1
    torchvision://NAME         another network's best        RGB, its mean and deviation

Files of other networks than VGG: see torchvision_weights.
Detectron2's own checkpointer loads them, too, but for Caffe's .pkl files (see nrpn_weights).
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torchvision
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler, file_lock
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, WeightsEnum, get_model_weights, list_models

from ..modeling.vgg import VGG, VGGBoxHead
from .torchvision_weights import move_weights, source_names

TORCHVISION = {
    "vgg16": VGG16_Weights.IMAGENET1K_V1,
    "vgg16_caffe": VGG16_Weights.IMAGENET1K_FEATURES,
}
CLASSIFIER = {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
_TORCHVISION_NAME = re.compile(r"features\.\d+\.\w+$")
_CAFFE_NAME = re.compile(r"conv\d+_\d+\.\w+$")


class TorchvisionHandler(PathHandler):
    """Find ``torchvision://vgg16`` in torch.hub's cache, and download it at the first use."""

    PREFIX = "torchvision://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, **kwargs) -> str:
        url = torchvision_entry(path).url
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        local = os.path.join(folder, os.path.basename(url))
        os.makedirs(folder, exist_ok=True)
        with file_lock(local):  # several processes, one download
            if not os.path.isfile(local):
                sha256_prefix = re.search(r"-([0-9a-f]{8})\.", local).group(1)
                torch.hub.download_url_to_file(url, local, sha256_prefix)
        return local


PathManager.register_handler(TorchvisionHandler())


def torchvision_entry(path: str) -> WeightsEnum:
    """Return what ``torchvision://NAME`` stands for: the network's best weights, but for VGG-16."""
    name = path[len(TorchvisionHandler.PREFIX) :]
    if name in TORCHVISION:
        return TORCHVISION[name]
    if name in list_models(module=torchvision.models):
        return get_model_weights(name).DEFAULT
    prefix = TorchvisionHandler.PREFIX
    known = ", ".join(prefix + n for n in TORCHVISION)
    message = f"MODEL.WEIGHTS is {path!r}; it must be {known}, {prefix} with the name of another of"
    raise ValueError(f"{message} torchvision's classification networks, or the path of a file")


def torchvision_files() -> dict[str, WeightsEnum]:
    """Return the files of all of torchvision's classification networks: file name -> entry."""
    networks = list_models(module=torchvision.models)
    entries = [entry for network in networks for entry in get_model_weights(network)]
    return {os.path.basename(entry.url): entry for entry in entries}


def has_caffe_names(names: Iterable[str]) -> bool:
    return any(_CAFFE_NAME.match(name) for name in names)


def is_imagenet_vgg(names: Iterable[str]) -> bool:
    """Return whether the names of a file are torchvision's or Caffe's for VGG's convolutions."""
    return has_caffe_names(names) or any(_TORCHVISION_NAME.match(name) for name in names)


def read_caffe_blobs(blobs: Mapping[str, Any]) -> dict[str, Any]:
    """Give Caffe's blobs the names of parameters.

    Args:
        blobs: "conv1_1_w" and "conv1_1_b" (Detectron), or "conv1_1": [weight, bias] (pycaffe).
            Other entries stay as they are, momentum is left out.

    Returns:
        "conv1_1.weight" and "conv1_1.bias".
    """
    named = {}
    for name, value in blobs.items():
        if isinstance(value, (list, tuple)) and len(value) == 2:
            named[f"{name}.weight"], named[f"{name}.bias"] = map(np.asarray, value)
        elif not name.endswith("_momentum"):
            named[re.sub("_w$", ".weight", re.sub("_b$", ".bias", name))] = value
    return named


def _caffe_names(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Map torchvision's and Caffe's names to Caffe's; torchvision numbers all kinds of layers."""
    vgg = next(module for module in model.modules() if isinstance(module, VGG))
    layers, index = dict(CLASSIFIER), 0
    for convs in vgg._stages.values():
        for conv in convs:
            layers[f"features.{index}"] = conv
            index += 2  # a convolution and its ReLU
        index += 1  # the pooling
    split = {name: name.rpartition(".") for name in names}
    return {n: f"{layers.get(layer, layer)}.{kind}" for n, (layer, _, kind) in split.items()}


def place_imagenet_vgg(model: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Give an ImageNet VGG-16 the names that it has in the model, in place.

    fc8, the 1000 classes, is left out; so are fc6 and fc7 in a model without a ``VGGBoxHead``, and
    a classifier without values (NaN, as in torchvision's IMAGENET1K_FEATURES).

    Args:
        model: a ``GeneralizedRCNN`` or ``ProposalNetwork`` with a :class:`VGG`.
        state_dict: torchvision's or Caffe's names -> tensors.

    Raises:
        ValueError: listing every name without a place in the model, and as :func:`move_weights`.
    """
    values = {new: state_dict[old] for old, new in _caffe_names(model, state_dict).items()}
    for name in [name for name in values if name.startswith("fc")]:
        if values[name].isnan().all():
            del values[name]
        elif values[name].dim() == 4:  # (1, 1, ...): how old Caffe stored fc6
            values[name] = values[name].flatten(0, 2)
    sources = source_names(model, VGG, VGGBoxHead)
    spare = "fc8." if "fc6.weight" in sources.values() else "fc"
    unplaced = [n for n in values if n not in sources.values() and not n.startswith(spare)]
    problems = [f"{name} in the file: no place in the model" for name in sorted(unplaced)]
    misfit = "The ImageNet VGG does not fit the model"
    if any(source.startswith(("fc6.", "fc7.")) for source in set(sources.values()) - set(values)):
        misfit += " (torchvision://vgg16_caffe has convolutions only; fc6 and fc7 are in"
        misfit += " torchvision://vgg16 and in files ported from Caffe as a whole)"
    move_weights(model, state_dict, values, sources, misfit, problems)
