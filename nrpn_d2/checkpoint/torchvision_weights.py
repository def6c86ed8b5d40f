"""Files of classification networks -> the names that their weights have in a model.

torchvision's own files, ``features.0.0.weight`` ..., go into a TorchvisionBackbone. A file that
someone trained with other pixels has the same names, so nothing but the config says what they are,
unless it is one that torchvision offers: see pixels.py.
"""

import logging
from collections.abc import Iterable

from torch import Tensor, nn

from ..modeling.torchvision_backbone import TorchvisionBackbone

logger = logging.getLogger(__name__)


def place_torchvision_weights(model: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Give the weights of a torchvision network the names that they have in the model, in place.

    The classifier, layers after the last feature map, and counters of batch normalisation are left
    out. Nothing happens without a ``TorchvisionBackbone``, or to other files.
    """
    sources = source_names(model, TorchvisionBackbone)
    if not state_dict.keys().isdisjoint(sources.values()):
        misfit = "The file holds another network than MODEL.TORCHVISION.NAME builds"
        move_weights(model, state_dict, state_dict, sources, misfit)


def source_names(model: nn.Module, *kinds: type[nn.Module]) -> dict[str, str]:
    """Map names of the model's weights to those in modules of some kinds, but for the nRPN's."""
    return {
        f"{prefix}.{name}": name
        for prefix, module in model.named_modules()
        if isinstance(module, kinds) and "negative_rpn" not in prefix
        for name in module.state_dict()
        if not name.endswith("num_batches_tracked")
    }


def move_weights(
    model: nn.Module,
    state_dict: dict[str, Tensor],
    values: dict[str, Tensor],
    sources: dict[str, str],
    misfit: str,
    problems: Iterable[str] = (),
) -> None:
    """Fill a state dict, in place, with values by the names of the model; others are left out.

    Args:
        values: by the names in ``sources``.
        sources: name in the model -> name of its value.
        misfit: what an error begins with.
        problems: that were found already.

    Raises:
        ValueError: listing every weight without values, with some that are not finite, or of
            another shape.
    """
    own, placed, problems = model.state_dict(), {}, list(problems)
    for name, source in sources.items():
        if source not in values:
            problems.append(f"{name}: no values in the file")
            continue
        placed[name] = value = values[source]
        shape, own_shape = tuple(value.shape), tuple(own[name].shape)
        if shape != own_shape:
            problems.append(f"{name}: {shape} in the file, {own_shape} in the model")
        elif not value.isfinite().all():
            problems.append(f"{name}: values in the file that are not finite")
    if problems:
        raise ValueError("\n  ".join([f"{misfit}:", *problems]))
    left_out = sorted(set(values) - set(sources.values()))
    logger.info("%d tensors have a place in the model; left out: %s", len(placed), left_out)
    state_dict.clear()
    state_dict.update(placed)
