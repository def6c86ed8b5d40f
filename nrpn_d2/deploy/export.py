"""Models for stock Detectron2, without this package."""

import os

import torch
from detectron2.config import CfgNode, get_cfg
from torch import Tensor, nn

from ..checkpoint.nrpn_weights import NRPN_PREFIX
from ..utils.saving import atomic_open


def needs_this_package(cfg: CfgNode) -> bool:
    """Return whether inference needs a VGG or torchvision's networks, which Detectron2 lacks."""
    ours = ("build_vgg_backbone", "build_torchvision_backbone", "build_torchvision_fpn_backbone")
    return cfg.MODEL.BACKBONE.NAME in ours or cfg.MODEL.ROI_BOX_HEAD.NAME == "VGGBoxHead"


def stock_config(cfg: CfgNode) -> CfgNode:
    """Return a model's config for Detectron2 alone; its proposal generator is the plain RPN.

    Returns:
        The values that differ from Detectron2's defaults, which any version since 0.5 can merge.
        The keys of this package are gone, except MODEL.VGG and MODEL.TORCHVISION of a model that
        needs one of them.
    """
    known = get_cfg()
    if needs_this_package(cfg):
        for section in ("VGG", "TORCHVISION"):
            known.MODEL[section] = CfgNode(dict.fromkeys(cfg.MODEL[section]))
    stock = _difference(cfg, known)
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "HardNegativeRPN":
        stock.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    stock.VERSION = cfg.VERSION
    return stock


def _difference(cfg: CfgNode, known: CfgNode) -> CfgNode:
    """Return the values of ``cfg`` that differ from ``known``'s, of the keys that both have."""
    differing = CfgNode()
    for key in set(cfg) & set(known):
        if isinstance(cfg[key], CfgNode):
            inner = _difference(cfg[key], known[key])
            if inner:
                differing[key] = inner
        elif cfg[key] != known[key]:
            differing[key] = cfg[key]
    return differing


def stock_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state dict without the nRPN, on the CPU."""
    state = model.state_dict()
    return {k: v.cpu() for k, v in state.items() if not k.startswith(NRPN_PREFIX)}


def export_stock(cfg: CfgNode, model: nn.Module, folder: str) -> list[str]:
    """Write model.pth and config.yaml for Detectron2's ``DefaultPredictor``; return both paths."""
    weights, config = (os.path.join(folder, name) for name in ("model.pth", "config.yaml"))
    with atomic_open(weights, "wb") as f:
        torch.save({"model": stock_weights(model)}, f)
    stock = stock_config(cfg)
    stock.MODEL.WEIGHTS = os.path.abspath(weights)
    with atomic_open(config, "w") as f:
        f.write(stock.dump())
    return [weights, config]
