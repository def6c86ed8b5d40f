"""Load any checkpoint into a model with two backbones, whoever loads it.

The paper's nRPN starts from the same ImageNet weights as the RPN, but checkpoints of pre-trained
weights know one backbone. Importing this module therefore wraps
``DetectionCheckpointer._load_model``. No narrower place would do: a project with Detectron2's own
``DefaultTrainer`` builds a stock ``DetectionCheckpointer``, and of a checkpoint that torch loads
into a model, a module sees its own part only, the nRPN nothing of ``backbone.*``.

A model without a second backbone, a VGG and a network of torchvision is loaded as before.
"""

import logging
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from fvcore.common.checkpoint import _strip_prefix_if_present
from torch import Tensor, nn

from ..modeling.negative_rpn import NegativeRPN, strip_old_suffix
from ..modeling.vgg import VGG
from .imagenet_weights import is_imagenet_vgg, place_imagenet_vgg
from .torchvision_weights import place_torchvision_weights

NRPN_PREFIX = "proposal_generator.negative_rpn."


def _copy_backbone(state_dict: dict[str, Tensor]) -> None:
    """Add ``backbone.*`` once more as the nRPN's own, in place, unless the state dict has one."""
    copies = {NRPN_PREFIX + k: v for k, v in state_dict.items() if k.startswith("backbone.")}
    if copies and not any(name.startswith(f"{NRPN_PREFIX}backbone.") for name in state_dict):
        state_dict.update(copies)
        message = "The nRPN's backbone starts from the checkpoint's backbone.* (%d tensors)"
        logging.getLogger(__name__).info(message, len(copies))


def _align_names(model: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Do what Detectron2 does with a model-zoo file such as R-50.pkl, without the nRPN.

    Detectron2 matches the ends of names, and refuses a file if "stem.conv1.weight" is the end of
    two names of the model.
    """
    names = {k: v for k, v in model.state_dict().items() if not k.startswith(NRPN_PREFIX)}
    is_caffe2 = checkpoint.get("__author__") == "Caffe2"
    checkpoint["model"] = align_and_update_state_dicts(names, checkpoint["model"], is_caffe2)


def _prepare(checkpointer: DetectionCheckpointer, checkpoint: dict[str, Any]) -> None:
    """Give a checkpoint the names of the model, and values for the nRPN's backbone, in place."""
    model = checkpointer.model
    nrpn = getattr(getattr(model, "proposal_generator", None), "negative_rpn", None)
    has_second_backbone = isinstance(nrpn, NegativeRPN) and nrpn.backbone is not None
    has_vgg = any(isinstance(module, VGG) for module in model.modules())
    checkpointer._convert_ndarray_to_tensor(checkpoint["model"])
    _strip_prefix_if_present(checkpoint["model"], "module.")  # of DistributedDataParallel
    if has_vgg and is_imagenet_vgg(checkpoint["model"]):
        place_imagenet_vgg(model, checkpoint["model"])
    place_torchvision_weights(model, checkpoint["model"])
    if not has_second_backbone:
        return
    strip_old_suffix(checkpoint["model"], NRPN_PREFIX)
    if checkpoint.pop("matching_heuristics", False):
        _align_names(model, checkpoint)
    # A resumed run finds all of its networks in its checkpoint, or is another model's
    if not getattr(checkpointer, "resumes", False):
        _copy_backbone(checkpoint["model"])


_detectron2s = DetectionCheckpointer._load_model


def _load_model(self: DetectionCheckpointer, checkpoint: dict[str, Any]) -> Any:
    _prepare(self, checkpoint)
    return _detectron2s(self, checkpoint)


DetectionCheckpointer._load_model = _load_model
