"""From a config file and ``KEY VALUE`` pairs to a config; used by train_net.py and every tool."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg

from ..checkpoint.checkpointer import last_checkpoint, set_pixels
from ..config import add_nrpn_config
from ..config_checks import check_nrpn_config
from ..data import register_datasets
from ..utils.config_file import merge_config_file


def build_cfg(config_file: str = "", opts: Sequence[str] = (), *, resume: bool = False) -> CfgNode:
    """Return a config, checked and frozen; the datasets it names are registered.

    Without a usable GPU, MODEL.DEVICE is the CPU. INPUT.FORMAT, MODEL.PIXEL_MEAN and PIXEL_STD are
    those that MODEL.WEIGHTS expect.

    Args:
        config_file: "" for the defaults.
        opts: keys and values in turn, which override the file's.
        resume: whether the last checkpoint in OUTPUT_DIR takes the place of MODEL.WEIGHTS.

    Raises:
        ValueError: naming the file or the key.
        CheckpointError: for weights that cannot be read.
    """
    cfg = get_cfg()
    add_nrpn_config(cfg)
    if config_file:
        merge_config_file(cfg, config_file)
    has_gpu = torch.cuda.is_available()
    if not has_gpu:
        cfg.MODEL.DEVICE = "cpu"
    _merge_opts(cfg, opts)
    if cfg.MODEL.DEVICE.startswith("cuda") and not has_gpu:
        raise ValueError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but there is no usable GPU")
    check_nrpn_config(cfg)
    set_pixels(cfg, last_checkpoint(cfg.OUTPUT_DIR) if resume else None)
    cfg.freeze()
    register_datasets(cfg)
    return cfg


def _merge_opts(cfg: CfgNode, opts: Sequence[str]) -> None:
    try:
        cfg.merge_from_list([o for o in opts if o != "--"])
    except (AssertionError, KeyError, ValueError) as error:
        reason = str(error.args[0] if isinstance(error, KeyError) else error)
        raise ValueError(f"{reason}; correct the KEY VALUE pairs of the command line") from None
