"""Checkpoints: read without running what is in them, written whole or not at all.

MODEL.WEIGHTS -> set_pixels(cfg) -> model -> NRPNCheckpointer.load
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import _IncompatibleKeys
from torch import nn

from ..utils.safe_load import CheckpointError, load_file
from ..utils.saving import atomic_open
from .imagenet_weights import (
    TorchvisionHandler,
    has_caffe_names,
    is_imagenet_vgg,
    read_caffe_blobs,
    torchvision_entry,
)
from .pixels import Pixels, apply_pixels, pixels_of, raise_if_different

_TAG_REMEDY = "write the name of a checkpoint into it, or delete it to start from MODEL.WEIGHTS"
_PERIODIC = re.compile(r"model_\d{7}\.pth")
_HALF_WRITTEN = re.compile(r"(\.pth|\.[0-9a-f]{32}(\.\w+)?)\.tmp$")


def split_query(path: str) -> tuple[str, dict[str, str]]:
    """Split ``file.pth?pixels=caffe`` into ``file.pth`` and ``{"pixels": "caffe"}``."""
    path, _, query = path.partition("?")
    options = dict(parse_qsl(query))
    unknown = set(options) - {"pixels", "matching_heuristics"}
    if unknown:
        raise ValueError(f"MODEL.WEIGHTS {path}?{query}: unknown {', '.join(sorted(unknown))}")
    return path, options


def read_checkpoint(path: str, mmap: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint, whose weights have names.

    Args:
        path: a local file: .pth of torch, .pkl of Detectron2, Detectron or Caffe, .pyth of pycls.
        mmap: leave the tensors on the disk until they are used, where the format allows.

    Returns:
        "model", a dict of tensors or arrays by name, and what else the file holds; as of
        ``DetectionCheckpointer._load_file``.

    Raises:
        CheckpointError: naming ``path``, if it is unreadable, holds something else, or asks for an
            object that could run code.
    """
    data = load_file(path, mmap)
    if isinstance(data, Mapping) and "model_state" in data:  # pycls
        weights = {k: v for k, v in data["model_state"].items() if "num_batches_tracked" not in k}
        data = {"model": weights, "__author__": "pycls", "matching_heuristics": True}
    elif isinstance(data, Mapping) and "model" not in data:
        data = _bare_weights(data, is_pickle=path.endswith(".pkl"))
    weights = data.get("model") if isinstance(data, Mapping) else None
    if not isinstance(weights, Mapping) or not weights:
        raise CheckpointError(f"{path} holds no weights by name: it is not a checkpoint")
    for name, value in weights.items():
        if not isinstance(value, (torch.Tensor, np.ndarray)):
            raise CheckpointError(f"{path} is not a checkpoint: {name!r} is a {type(value)}")
    return dict(data)


def _bare_weights(data: Mapping[str, Any], is_pickle: bool) -> dict[str, Any]:
    """Return a checkpoint of a file that holds nothing but weights."""
    blobs = data["blobs"] if isinstance(data.get("blobs"), Mapping) else data
    named = read_caffe_blobs(blobs)
    if has_caffe_names(named):
        return {"model": named}
    if not is_pickle or is_imagenet_vgg(blobs):
        return {"model": blobs}
    weights = {name: value for name, value in blobs.items() if not name.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def set_pixels(cfg: CfgNode, weights: str | None = None) -> None:
    """Set the pixel keys of a config to what its weights expect; call it before building the model.

    Keys with Detectron2's default values are set. Nothing happens for weights that do not say what
    their pixels are: no weights at all, or checkpoints that another package wrote.

    Args:
        weights: what to go by instead of ``MODEL.WEIGHTS``.

    Raises:
        ValueError: naming the keys that contradict the weights.
        CheckpointError: for a file that cannot be read.
    """
    weights = cfg.MODEL.WEIGHTS if weights is None else weights
    if not weights:
        return
    path, options = split_query(weights)
    if path.startswith(TorchvisionHandler.PREFIX):
        pixels = Pixels.of_torchvision(torchvision_entry(path))
    else:
        local = PathManager.get_local_path(path)
        pixels = pixels_of(read_checkpoint(local, mmap=True), local, options.get("pixels", ""))
    if pixels is not None:
        apply_pixels(cfg, pixels, weights)


def last_checkpoint(folder: str) -> str | None:
    """Return the checkpoint that a resumed run starts from, or None.

    Raises:
        CheckpointError: the file that names it is unreadable, or names none.
    """
    tag = os.path.join(folder, "last_checkpoint")
    if not os.path.lexists(tag):
        return None
    try:
        with open(tag, encoding="utf-8") as f:
            name = f.read().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise CheckpointError(f"{tag} cannot be read ({e}); {_TAG_REMEDY}") from e
    path = os.path.join(folder, name)
    if "\0" in path or not os.path.isfile(path):
        raise CheckpointError(f"{tag} names {name!r}, which is no file there; {_TAG_REMEDY}")
    return path


def differences(incompatible: _IncompatibleKeys) -> list[str]:
    """List what a checkpoint and a model do not have in common, a line each."""
    problems = dict.fromkeys(incompatible.missing_keys, "not in the checkpoint")
    problems |= dict.fromkeys(incompatible.unexpected_keys, "not in the model")
    for name, saved, own in incompatible.incorrect_shapes:  # missing, too, to torch
        problems[name] = f"{saved} in the checkpoint, {own} in the model"
    return [f"{name}: {problem}" for name, problem in problems.items()]


class NRPNCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that reads safely, checks pixels, and writes atomically."""

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        pixels: Pixels | None = None,
        keep: int = 0,
        **kwargs: Any,
    ):
        """
        Args:
            save_dir: a local folder.
            pixels: the config's; saved in every checkpoint, and compared with those of a checkpoint
                that is loaded.
            keep: number of periodic checkpoints (model_0004999.pth) to keep, the newest; 0: all.
            model, kwargs: as for ``DetectionCheckpointer``.
        """
        super().__init__(model, save_dir, **kwargs)
        self.pixels = pixels
        self.keep = keep
        self._options: dict[str, str] = {}
        self._file = ""  # that is being loaded
        self.resumes = False  # while a run is resumed

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module, **states: Any) -> "NRPNCheckpointer":
        """Build it with the config's folder and pixels; ``states`` are its checkpointables."""
        pixels, keep = Pixels.of_config(cfg), cfg.SOLVER.CHECKPOINTS_TO_KEEP
        return cls(model, cfg.OUTPUT_DIR, pixels=pixels, keep=keep, **states)

    def load(self, path: str, *args, **kwargs) -> dict[str, Any]:
        """Load a checkpoint as ``DetectionCheckpointer.load`` does.

        Raises:
            CheckpointError: see :func:`read_checkpoint`; or no weight in the file fits the model.
            ValueError: if the checkpoint's pixels are not the config's, or an ImageNet VGG does not
                fit the model.
        """
        if path:
            path, self._options = split_query(path)
        try:
            return super().load(path, *args, **kwargs)
        finally:
            self._parsed_url_during_load = None  # Detectron2 main forgets it after an error

    def _load_file(self, filename: str) -> dict[str, Any]:
        self._file = filename
        checkpoint = read_checkpoint(filename)
        if self._options.get("matching_heuristics") == "True":
            checkpoint["matching_heuristics"] = True
        pixels = pixels_of(checkpoint, filename, self._options.get("pixels", ""))
        if pixels is not None and self.pixels is not None:
            raise_if_different(pixels, self.pixels, filename)
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> _IncompatibleKeys:
        incompatible = super()._load_model(checkpoint)
        names = {name for name, _ in self.model.named_parameters()}
        if names and names <= set(incompatible.missing_keys):
            message = f"{self._file}: no parameter of the model matches by name and shape. The file"
            message += " belongs to another architecture, or to another MODEL.BACKBONE.NAME"
            raise CheckpointError(message)
        return incompatible

    def _log_incompatible_keys(self, incompatible: _IncompatibleKeys) -> None:
        problems = differences(incompatible)
        if self.resumes and problems:
            message = f"{self._file} was written by a run of another model, so it cannot be resumed"
            message += " with this config; take that run's, or another OUTPUT_DIR:"
            raise CheckpointError("\n  ".join([message, *problems]))
        super()._log_incompatible_keys(incompatible)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load as ``DetectionCheckpointer`` does; tidy up after a run that was killed.

        Without ``resume`` the folder stays as it is: this is also how a model is loaded that is
        only evaluated.

        Raises:
            CheckpointError: besides :meth:`load`, if the run to be resumed had another model.
        """
        self.resumes = resume and self.has_checkpoint()
        if self.resumes and self.save_to_disk:
            self._prune()
        try:
            return super().resume_or_load(path, resume=resume)
        finally:
            self.resumes = False

    def set_aside_earlier_run(self, weights: str) -> None:
        """Rename the last and the best checkpoint in the folder, before a new run writes to it.

        Otherwise the new run, killed and resumed, would go on with them.

        Args:
            weights: the file that the new run starts from, which keeps its name.
        """
        for name in ("last_checkpoint", "model_best.pth"):
            path = os.path.join(self.save_dir, name)
            keep = os.path.abspath(path) == os.path.abspath(weights)
            if self.save_to_disk and os.path.isfile(path) and not keep:
                os.replace(path, f"{path}.previous")
                self.logger.warning("Renamed %s from an earlier run to %s.previous", path, name)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name``.pth, make it the last checkpoint, and prune old ones."""
        if not self.save_dir or not self.save_to_disk:
            return
        self.write(name, **kwargs)
        self.tag_last_checkpoint(f"{name}.pth")
        self._prune()

    def write(self, name: str, **kwargs: Any) -> None:
        """Write ``name``.pth and leave the last checkpoint what it was."""
        data = {"model": self.model.state_dict()}
        if self.pixels is not None:
            data["pixels"] = asdict(self.pixels)
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()}, **kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        with atomic_open(path, "wb") as f:
            torch.save(data, f)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with atomic_open(os.path.join(self.save_dir, "last_checkpoint"), "w") as f:
            f.write(last_filename_basename)

    def _prune(self) -> None:
        """Remove old periodic checkpoints, and what a killed run left half written.

        The last checkpoint stays, even where a killed run has written a newer one.
        """
        last = last_checkpoint(self.save_dir)
        files = [os.path.join(self.save_dir, name) for name in os.listdir(self.save_dir)]
        periodic = [path for path in files if _PERIODIC.fullmatch(os.path.basename(path))]
        periodic.sort(key=lambda path: (os.path.getmtime(path), path))
        old = periodic[: -self.keep] if self.keep else []
        old = [path for path in old if path != last]
        for path in old + [path for path in files if _HALF_WRITTEN.search(path)]:
            os.remove(path)
