"""torchvision's own files, ``features.0.0.weight`` ..., into a TorchvisionBackbone.

A file that someone trained with other pixels has the same names, so nothing but the config says
what they are, unless it is one that torchvision offers: see pixels.py.
"""

import logging
from typing import Any

from torch import nn

from ..modeling.torchvision_backbone import TorchvisionBackbone

logger = logging.getLogger(__name__)


def place_torchvision_weights(model: nn.Module, state_dict: dict[str, Any]) -> None:
    """Give the weights of a torchvision network the names that they have in the model, in place.

    The classifier, layers after the last feature map, and counters of batch normalisation are left
    out. Nothing happens without a ``TorchvisionBackbone``, or to other files.

    Args:
        model: a ``GeneralizedRCNN`` or ``ProposalNetwork``.
        state_dict: tensors or arrays by name.

    Raises:
        ValueError: listing the weights of the backbone that are not in the file or have another
            shape there.
    """
    places = _places(model)
    if not any(source in state_dict for source in places.values()):
        return
    placed, problems, own_weights = {}, [], model.state_dict()
    for name, source in places.items():
        own = own_weights[name].shape
        if source not in state_dict:
            problems.append(f"{name}: no values in the file")
        elif tuple(state_dict[source].shape) != tuple(own):
            shape = tuple(state_dict[source].shape)
            problems.append(f"{name}: {shape} in the file, {tuple(own)} in the model")
        else:
            placed[name] = state_dict[source]
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(
            "The file holds another network than MODEL.TORCHVISION.NAME builds:\n  " + listed
        )
    left_out = sorted(set(state_dict) - set(places.values()))
    logger.info("%d tensors of a torchvision network; left out: %s", len(placed), left_out)
    state_dict.clear()
    state_dict.update(placed)


def _places(model: nn.Module) -> dict[str, str]:
    """Return the name of each weight in the model's TorchvisionBackbone -> torchvision's."""
    places = {}
    for prefix, module in model.named_modules():
        if isinstance(module, TorchvisionBackbone) and "negative_rpn" not in prefix:
            for name in module.state_dict():
                if not name.endswith("num_batches_tracked"):
                    places[f"{prefix}.{name}"] = name
    return places
