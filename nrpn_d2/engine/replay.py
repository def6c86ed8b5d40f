"""A training step in a file, to run it again: weights, batch, seed.

The file is a checkpoint, read without running code (``weights_only``).
"""

from contextlib import ExitStack
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from ..checkpoint.checkpointer import NRPNCheckpointer
from ..utils.seeding import seed_all
from .train_loop import proposals_of_any_prediction, rpns_of

_PLAIN = (torch.Tensor, str, int, float)


def to_plain(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Model input as tensors, numbers, strings and dicts of them.

    ``Instances`` become dicts of their fields and "image_size". Anything else but boxes, such as
    masks, is left out.
    """
    return [{k: _plain(v) for k, v in item.items() if _plain(v) is not None} for item in batch]


def _plain(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value.cpu() if isinstance(value, torch.Tensor) else value
    if isinstance(value, Boxes):
        return value.tensor.cpu()
    if isinstance(value, Instances):
        fields = {k: _plain(v) for k, v in value.get_fields().items() if _plain(v) is not None}
        return {"image_size": tuple(value.image_size), **fields}
    return None


def from_plain(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The inverse of :func:`to_plain`."""
    return [
        {k: _instances(v) if isinstance(v, dict) else v for k, v in item.items()} for item in batch
    ]


def _instances(plain: dict[str, Any]) -> Instances:
    fields = {k: Boxes(v) if k.endswith("_boxes") else v for k, v in plain.items()}
    return Instances(fields.pop("image_size"), **fields)


def save_step(
    cfg: CfgNode, model: nn.Module, name: str, batch: list[dict[str, Any]], **step: Any
) -> str:
    """Write ``name``.pth to the output folder.

    Args:
        model: with the weights before the step.
        batch: the model's input.
        step: "seed", "rank", "world_size", "iteration", "losses".

    Returns:
        The path.
    """
    NRPNCheckpointer.from_config(cfg, model).write(name, batch=to_plain(batch), **step)
    return f"{cfg.OUTPUT_DIR}/{name}.pth"


def replay_step(cfg: CfgNode, model: nn.Module, saved: dict[str, Any]) -> tuple[dict, list[str]]:
    """Run the forward pass of a saved step again.

    Args:
        model: with the saved weights.
        saved: the content of the file.

    Returns:
        dict[str, float]: the losses.
        list[str]: what Detectron2's RPN says of its predictions, if they are not finite.
    """
    model.train()
    device = torch.device(cfg.MODEL.DEVICE).type
    seed_all(saved["seed"], saved["rank"], saved["iteration"])
    with ExitStack() as stack:
        stack.enter_context(EventStorage(saved["iteration"]))
        stack.enter_context(torch.autocast(device, enabled=cfg.SOLVER.AMP.ENABLED))
        errors = stack.enter_context(proposals_of_any_prediction(rpns_of(model)))
        losses = model(from_plain(saved["batch"]))
    return {name: loss.item() for name, loss in losses.items()}, [str(e) for e in errors]
