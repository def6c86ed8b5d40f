"""Weights & Biases beside TensorBoard, for those who ask for it with WANDB_PROJECT."""

import importlib
import os
import sys
from collections import defaultdict
from typing import Any

import numpy as np
import yaml
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from ..utils.saving import atomic_open


def check_wandb(cfg: CfgNode) -> None:
    """Raise a ValueError if WANDB_PROJECT is set and wandb cannot be imported."""
    if not cfg.WANDB_PROJECT:
        return
    try:
        importlib.import_module("wandb.sdk")  # "wandb" may be a folder of earlier runs
    except ImportError:
        message = f"WANDB_PROJECT is {cfg.WANDB_PROJECT!r}, and wandb is not installed"
        raise ValueError(f"{message}; pip install wandb, or leave the key empty") from None


class WandbHook(HookBase):
    """Log what TensorBoard gets, scalars, pictures and histograms, to Weights & Biases.

    A resumed run goes on with its run there. To be registered in the main process alone, before
    ``PeriodicWriter``, which clears the pictures. Entity, name and mode are wandb's own environment
    variables (WANDB_ENTITY, WANDB_NAME, WANDB_MODE=offline).
    """

    def __init__(self, cfg: CfgNode, period: int = 20):
        self._cfg, self._period, self._last_write = cfg, period, -1
        self._run: Any = None

    def before_train(self) -> None:
        """
        Raises:
            ValueError: wandb refuses to start a run.
        """
        import wandb

        id_file = os.path.join(self._cfg.OUTPUT_DIR, "wandb_run.txt")
        run_id = None
        if self.trainer.start_iter > 0 and os.path.isfile(id_file):
            with open(id_file) as f:
                run_id = f.read().strip()
        try:
            self._run = wandb.init(
                project=self._cfg.WANDB_PROJECT,
                name=os.environ.get("WANDB_NAME", os.path.basename(self._cfg.OUTPUT_DIR)),
                dir=self._cfg.OUTPUT_DIR,
                config=yaml.safe_load(self._cfg.dump()),
                id=run_id,
                resume="allow",
            )
        except wandb.Error as error:
            remedy = "log in with wandb login, set WANDB_MODE=offline, or leave the key empty"
            message = f"WANDB_PROJECT is {self._cfg.WANDB_PROJECT!r}: {error}; {remedy}"
            raise ValueError(message) from error
        with atomic_open(id_file, "w") as f:
            f.write(self._run.id)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            self._log(self.trainer.storage)

    def after_train(self) -> None:
        if self._run is not None:  # else it has refused to start
            self._log(self.trainer.storage)
            self._run.finish(exit_code=int(sys.exc_info()[1] is not None))

    def _log(self, storage: EventStorage) -> None:
        import wandb

        by_step: dict[int, dict[str, Any]] = defaultdict(dict)
        for name, (value, step) in storage.latest_with_smoothing_hint(self._period).items():
            if step > self._last_write:
                by_step[step][name] = value
        self._last_write = max(by_step, default=self._last_write)
        for name, image, step in storage._vis_data:  # (3, H, W)
            by_step[step][name] = wandb.Image(np.asarray(image).transpose(1, 2, 0))
        for bins in storage._histograms:
            edges = [bins["min"], *bins["bucket_limits"]]
            histogram = wandb.Histogram(np_histogram=(bins["bucket_counts"], edges))
            by_step[bins["global_step"]][bins["tag"]] = histogram
        for step in sorted(by_step):
            self._run.log(by_step[step], step=step)
