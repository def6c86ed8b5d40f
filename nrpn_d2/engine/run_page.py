"""The page in a run's folder, written while it trains; and what it needs to remember."""

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from typing import Any

import detectron2
import torch
import torchvision
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..data.loader import TrainLoader
from ..evaluation.page.folder import RECORD
from ..evaluation.page.pages import write_run_page
from ..utils.saving import atomic_open
from .train_loop import NonFiniteLoss

logger = logging.getLogger(__name__)


class RunPage(HookBase):
    """Writes index.html of a run at its checkpoints, at each evaluation and at the end.

    It stands after what writes results and metrics, in the main process only. A page that cannot be
    written is logged, and the training goes on.
    """

    def __init__(self, folder: str, period: int):
        """
        Args:
            period: iterations between two pages, besides those at evaluations; 0 for none.
        """
        self._folder = folder
        self._period = period
        self._results: dict[str, Any] | None = None
        self._record: dict[str, Any] = {}

    def before_train(self) -> None:
        self._record = environment()
        if isinstance(self.trainer.data_loader, TrainLoader):
            self._record["training_images"] = self.trainer.data_loader.num_records
        update_page(self._folder, self._record)

    def after_step(self) -> None:
        results = getattr(self.trainer, "_last_eval_results", None)
        done = self.trainer.iter + 1
        due = self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter
        if due or results is not self._results and done < self.trainer.max_iter:
            self._results = results
            update_page(self._folder, self._record)

    def after_train(self) -> None:
        error = sys.exc_info()[1]  # with which the training ends, if it does
        self._record["ended"] = time.strftime("%Y-%m-%d %H:%M:%S")
        if error is not None:
            known = isinstance(error, (NonFiniteLoss, KeyboardInterrupt))
            lines = str(error).splitlines()[:1] if known else [repr(error)[:300]]
            self._record["error"] = (lines or [type(error).__name__])[0]
        update_page(self._folder, self._record)


def write_evaluation_page(folder: str) -> None:
    """Write the page of an evaluation without a training beside its results."""
    if comm.is_main_process():
        update_page(folder, environment())


def update_page(folder: str, record: dict[str, Any]) -> None:
    """Write run.json and index.html; a failure is logged."""
    try:
        with atomic_open(os.path.join(folder, RECORD), "w") as file:
            json.dump(record, file, indent=1)
        write_run_page(folder)
    except Exception:  # a training is worth more than its page
        logger.exception("The page of %s could not be written", folder)


def environment() -> dict[str, Any]:
    """Return what a run cannot be understood without, later."""
    versions = {
        "nrpn_d2": sys.modules[__name__.partition(".")[0]].__version__,
        "detectron2": detectron2.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "Python": platform.python_version(),
    }
    has_gpu = torch.cuda.is_initialized()  # the model is on its device by now
    return {
        "command": shlex.join(sys.argv),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "versions": versions,
        "device": torch.cuda.get_device_name() if has_gpu else f"CPU ({platform.machine()})",
        "commit": commit(),
    }


def commit() -> str:
    """Return the commit of this code, and whether it was changed; "" outside of a repository."""

    def git(*command: str) -> str:
        command = ("git", "-C", os.path.dirname(__file__), *command)
        try:
            return subprocess.run(
                command, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""

    if not git("ls-files", os.path.basename(__file__)):  # installed below another repository
        return ""
    changed = git("status", "--porcelain", "--untracked-files=no", ".")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
