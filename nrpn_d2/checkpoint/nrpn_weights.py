"""Weights in: a checkpoint without an nRPN also initialises the nRPN's own backbone.

The paper's nRPN starts from the same ImageNet weights as the RPN. Checkpoints of pre-trained
weights only know one backbone, so two things are arranged here, for any checkpointer (also that of
a Detectron2 project that knows nothing of this package):

1. When such a checkpoint is loaded, the nRPN's backbone gets a copy of what ``backbone.*`` gets.
2. Detectron2 loads model-zoo files such as R-50.pkl by matching the ends of names, and refuses a
   file if "stem.conv1.weight" is the end of two names. In state dicts the nRPN's backbone therefore
   carries a suffix: "proposal_generator.negative_rpn.backbone.stem.conv1.weight.nrpn".
"""

import logging

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

SUFFIX = ".nrpn"
NRPN_PREFIX = "proposal_generator.negative_rpn."


def hide_from_name_matching(negative_rpn: nn.Module) -> None:
    """Give the names of the nRPN's own backbone the suffix, in its state dicts (point 2)."""

    def add_suffix(module, state_dict, prefix, local_metadata):
        for name in [k for k in state_dict if k.startswith(prefix + "backbone.")]:
            state_dict[name + SUFFIX] = state_dict.pop(name)

    def remove_suffix(module, state_dict, prefix, *args):
        for name in [k for k in state_dict if k.startswith(prefix + "backbone.")]:
            if name.endswith(SUFFIX):
                state_dict[name[: -len(SUFFIX)]] = state_dict.pop(name)

    negative_rpn._register_state_dict_hook(add_suffix)
    negative_rpn._register_load_state_dict_pre_hook(remove_suffix, with_module=True)


def copy_backbone(state_dict: dict[str, Tensor], prefix: str = "") -> int:
    """Add ``backbone.*`` once more under the names of the nRPN's backbone, in place (point 1).

    Nothing happens to a state dict that has an nRPN.

    Args:
        state_dict: of a ``GeneralizedRCNN`` or ``ProposalNetwork``.
        prefix: in front of all names, such as "module.".

    Returns:
        The number of tensors added.
    """
    if any(name.startswith(prefix + NRPN_PREFIX) for name in state_dict):
        return 0
    backbone = prefix + "backbone."
    copies = {
        prefix + NRPN_PREFIX + name[len(prefix) :] + SUFFIX: tensor
        for name, tensor in state_dict.items()
        if name.startswith(backbone)
    }
    state_dict.update(copies)
    return len(copies)


def _on_load(model, state_dict, prefix, *args):
    copied = copy_backbone(state_dict, prefix)
    if copied:
        logging.getLogger(__name__).info(
            "The checkpoint has no nRPN: its backbone starts from %d tensors of backbone.*", copied
        )


def _watch_models(model: nn.Module, name: str, submodule: nn.Module) -> None:
    """Called by torch when ``model.name = submodule``; ``model`` sees whole checkpoints."""
    if name != "proposal_generator" or isinstance(model, torch.jit.ScriptModule):
        return  # an exported model has its weights, and no hooks
    negative_rpn = getattr(submodule, "negative_rpn", None)
    if getattr(negative_rpn, "backbone", None) is not None:
        model._register_load_state_dict_pre_hook(_on_load, with_module=True)


register_module_module_registration_hook(_watch_models)
