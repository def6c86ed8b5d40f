"""From a config file and ``KEY VALUE`` pairs to a config, and to a run; for every tool."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_setup
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, ProposalNetwork
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..checkpoint.checkpointer import last_checkpoint, set_pixels
from ..config import add_nrpn_config
from ..config_checks import check_nrpn_config, check_run_config
from ..data import check_datasets, register_datasets, take_classes
from ..utils.config_file import merge_config_file
from . import run_folder
from .wandb_hook import check_wandb


def build_cfg(config_file: str = "", opts: Sequence[str] = ()) -> CfgNode:
    """Return a config, checked and frozen; the datasets it names are registered.

    Without a usable GPU, MODEL.DEVICE is the CPU. INPUT.FORMAT, MODEL.PIXEL_MEAN and PIXEL_STD are
    those that MODEL.WEIGHTS expect. MODEL.ROI_HEADS.NUM_CLASSES is that of the data if it is left
    at Detectron2's default.

    Args:
        config_file: "" for the defaults.
        opts: keys and values in turn, which override the file's.

    Raises:
        ValueError: naming the file or the key.
        CheckpointError: for weights that cannot be read.
    """
    cfg = merge_cfg(config_file, opts)
    _complete(cfg, resume=False)
    return cfg


def setup_run(
    config_file: str, opts: Sequence[str] = (), *, resume: bool = False, eval_only: bool = False
) -> CfgNode:
    """Build a config as :func:`build_cfg` does, and make its OUTPUT_DIR ready for a run.

    With ``resume`` the last checkpoint in OUTPUT_DIR takes the place of MODEL.WEIGHTS.
    The folder is this run's alone. The log goes to the console and to log.txt, the config to
    config.yaml; an evaluation, which may be of a run in the folder, writes them beside its results.

    Raises:
        ValueError: besides those of :func:`build_cfg`, for what cannot be trained or evaluated, and
            for a folder in which another run is at work.
    """
    if not config_file:
        raise ValueError("--config-file is empty; give a file such as configs/shapes_nrpn.yaml")
    cfg = merge_cfg(config_file, opts)
    check_run_config(cfg, eval_only)
    _check_combinations(cfg, eval_only)
    folder = os.path.join(cfg.OUTPUT_DIR, "inference") if eval_only else cfg.OUTPUT_DIR
    if not eval_only:
        run_folder.claim(folder)
    _start_log(folder)
    _complete(cfg, resume)
    check_datasets(cfg, eval_only)
    args = {"config_file": config_file, "opts": opts, "resume": resume, "eval_only": eval_only}
    written = changed(cfg, {"OUTPUT_DIR": folder}) if eval_only else cfg
    default_setup(written, argparse.Namespace(**args))
    return cfg


def merge_cfg(config_file: str, opts: Sequence[str] = ()) -> CfgNode:
    """Return a checked config as :func:`build_cfg` does, but look at neither data nor weights."""
    cfg = get_cfg()
    add_nrpn_config(cfg)
    if config_file:
        merge_config_file(cfg, config_file)
    has_gpu = torch.cuda.is_available()
    if not has_gpu:
        cfg.MODEL.DEVICE = "cpu"
    try:
        cfg.merge_from_list([o for o in opts if o != "--"])
    except (AssertionError, KeyError, ValueError) as error:
        reason = str(error.args[0] if isinstance(error, KeyError) else error)
        raise ValueError(f"{reason}; correct the KEY VALUE pairs of the command line") from None
    if cfg.MODEL.DEVICE.startswith("cuda") and not has_gpu:
        raise ValueError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but there is no usable GPU")
    check_nrpn_config(cfg)
    return cfg


def changed(cfg: CfgNode, changes: dict[str, Any]) -> CfgNode:
    """Return a frozen copy with other values: key -> value."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([part for change in changes.items() for part in change])
    cfg.freeze()
    return cfg


def _complete(cfg: CfgNode, resume: bool) -> None:
    set_pixels(cfg, last_checkpoint(cfg.OUTPUT_DIR) if resume else None)
    register_datasets(cfg)
    take_classes(cfg)
    cfg.freeze()


def _check_combinations(cfg: CfgNode, eval_only: bool) -> None:
    """Refuse what would fail after hours, or would be ignored."""
    if "?" in cfg.OUTPUT_DIR or "://" in cfg.OUTPUT_DIR:
        message = f"OUTPUT_DIR is {cfg.OUTPUT_DIR!r}; it must be a local folder without '?' in its"
        raise ValueError(f"{message} name, which begins the options of a checkpoint's")
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu" and not eval_only:
        raise ValueError("SOLVER.AMP.ENABLED is True, and MODEL.DEVICE 'cpu'; it needs a GPU")
    if not eval_only:
        check_wandb(cfg)
    if cfg.TEST.AUG.ENABLED:
        raise ValueError("TEST.AUG.ENABLED is True; test-time augmentation is not supported")
    generator = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if cfg.MODEL.LOAD_PROPOSALS != (generator == "PrecomputedProposals"):
        message = f"MODEL.LOAD_PROPOSALS is {cfg.MODEL.LOAD_PROPOSALS} and"
        message += f" MODEL.PROPOSAL_GENERATOR.NAME {generator!r}; proposals from files need True"
        raise ValueError(f"{message} and 'PrecomputedProposals', an RPN not")
    name = cfg.MODEL.META_ARCHITECTURE
    if not issubclass(META_ARCH_REGISTRY.get(name), (GeneralizedRCNN, ProposalNetwork)):
        message = f"MODEL.META_ARCHITECTURE is {name!r}, which has no proposals; it must be"
        raise ValueError(f"{message} 'GeneralizedRCNN', 'ProposalNetwork', or a subclass of one")


# What Detectron2 logs at the start of a run, hundreds of lines
_DUMPS = ("Environment info:", "Contents of args.config_file", "Running with full config", "Model:")
_LINE = "[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%m/%d %H:%M:%S"


def _start_log(folder: str) -> None:
    """Log to the console and to log.txt in ``folder``: dumps to the file, colours to terminals."""
    rank = comm.get_rank()
    # The first two exactly as default_setup calls it, which then adds no handlers
    setup_logger(folder, distributed_rank=rank, name="fvcore")
    setup_logger(folder, distributed_rank=rank)
    setup_logger(folder, distributed_rank=rank, name="nrpn_d2")
    for name in ("fvcore", "detectron2", "nrpn_d2"):
        handlers = logging.getLogger(name).handlers
        for handler in (h for h in handlers if isinstance(h, logging.StreamHandler)):
            if not handler.stream.isatty():
                handler.setFormatter(_Colourless(*_LINE))
            if handler.stream is sys.stdout:
                handler.addFilter(lambda record: not record.getMessage().startswith(_DUMPS))


class _Colourless(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", super().format(record))
