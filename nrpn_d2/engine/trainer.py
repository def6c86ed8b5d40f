"""The trainer: it resumes exactly, and stops where losses are not finite."""

import logging
import os
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PeriodicWriter, PreciseBN
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.utils.data import DataLoader

from ..checkpoint.checkpointer import NRPNCheckpointer
from ..data import VOCDatasetMapper
from ..data.loader import TrainLoader, build_test_loader, build_train_loader
from ..evaluation import build_evaluators, with_budgets
from ..modeling.events import ExchangePrinter
from ..utils.seeding import seed_all
from . import run_folder
from .defaults import changed
from .hooks import (
    BestCheckpoint,
    RepeatablePreciseBN,
    WarnOfMisfits,
    best_metric,
    check_best_metric,
    finite,
)
from .pictures import DrawPictures
from .resume import check_training_state, config_changes, warn_of_changes
from .run_page import RunPage
from .train_loop import FiniteAMPTrainer, FiniteTrainer, NonFiniteLoss
from .validation import ValidationLosses
from .wandb_hook import WandbHook


class Trainer(DefaultTrainer):
    """Detectron2's trainer on VOC-layout data, evaluated at several proposal budgets.

    Every random number is a function of the run's seed and of the iteration, so that a run that is
    killed and resumed ends with the weights of the undisturbed one.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        world_size = comm.get_world_size()
        cfg = DefaultTrainer.auto_scale_workers(scale_nrpn_warmup(cfg, world_size), world_size)
        if cfg.SOLVER.DETERMINISTIC:
            use_deterministic_algorithms(cfg)
        # One that was drawn gives way to the checkpoint's
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self._config_changes: dict[str, tuple[Any, Any]] = {}  # since the checkpoint was written
        self._logger = logging.getLogger(__name__)
        self._logger.info("Random numbers are those of SEED %d", self.seed)

        seed_all(self.seed)  # new weights are the same in every process
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        # DefaultTrainer names a device to DDP, which refuses that on the CPU
        devices = None if cfg.MODEL.DEVICE == "cpu" else [comm.get_local_rank()]
        model = create_ddp_model(model, broadcast_buffers=False, device_ids=devices)
        loop = FiniteAMPTrainer if cfg.SOLVER.AMP.ENABLED else FiniteTrainer
        self._trainer = loop(model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = NRPNCheckpointer.from_config(cfg, model, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def train(self) -> dict[str, Any] | None:
        """Train, and return the results of the evaluation at the end; no other run in OUTPUT_DIR.

        Only a ``TrainLoader`` goes on where the checkpoint was written; a loader of another kind,
        from a subclass, starts anew.

        Raises:
            ValueError: the checkpoint is from after the last iteration, or not that of all
                processes.
        """
        starts = sorted(set(comm.all_gather((self.start_iter, self.seed))))
        if len(starts) > 1:
            each = " and ".join(f"iteration {start} with SEED {seed}" for start, seed in starts)
            message = f"Ranks disagree on the start ({each}): OUTPUT_DIR {self.cfg.OUTPUT_DIR}"
            raise ValueError(f"{message} must be on storage that all machines share")
        if self.start_iter > self.max_iter:
            message = f"{self.checkpointer.get_checkpoint_file()} is of iteration {self.start_iter}"
            message += f", after SOLVER.MAX_ITER {self.max_iter}"
            raise ValueError(f"{message}; make that larger, or take --eval-only")
        if isinstance(self.data_loader, TrainLoader):
            self.data_loader.start_at(self.start_iter, self.seed)
        run_folder.claim(self.cfg.OUTPUT_DIR)
        try:
            super().train()
        finally:
            run_folder.release(self.cfg.OUTPUT_DIR)
        return self._last_eval_results

    def before_train(self) -> None:
        super().before_train()
        if self.start_iter > 0:
            self._repeat_what_follows_a_checkpoint()
        else:
            self.checkpointer.set_aside_earlier_run(self.cfg.MODEL.WEIGHTS)

    def _repeat_what_follows_a_checkpoint(self) -> None:
        """The evaluation and, after the last iteration, model_final.

        Both come after the numbered checkpoint, and the run may have been killed before they ended.
        """
        self.iter = self.storage.iter = self.start_iter - 1
        last = os.path.basename(self.checkpointer.get_checkpoint_file())
        lacks_final = self.start_iter == self.max_iter and last != "model_final.pth"
        for hook in self._hooks:
            final = isinstance(hook, PeriodicCheckpointer) and lacks_final
            if final or isinstance(hook, (EvalHook, BestCheckpoint)):
                hook.after_step()

    def after_train(self) -> None:
        if self.iter < self.max_iter:
            # An error, which in the last iteration Detectron2 takes for the end: one process would
            # evaluate, and the others wait for it in the training step
            self._hooks = [h for h in self._hooks if not isinstance(h, (EvalHook, BestCheckpoint))]
        super().after_train()

    def run_step(self) -> None:
        seed_all(self.seed, comm.get_rank(), self.iter)
        self._trainer.iter = self.iter
        try:
            self._trainer.run_step()
        except NonFiniteLoss as error:
            reports = [r for r in comm.all_gather(str(error)) if r]
            message = f"Iteration {self.iter}: the losses are not finite"
            raise NonFiniteLoss("\n".join([message, *reports])) from None

    def resume_or_load(self, resume: bool = True) -> None:
        """As Detectron2's; a resumed run lists how its config differs from the checkpoint's.

        Raises:
            ValueError: naming the keys whose change the checkpoint does not allow, or because
                another run is at work in OUTPUT_DIR.
        """
        run_folder.claim(self.cfg.OUTPUT_DIR)
        if resume and self.checkpointer.has_checkpoint():
            checkpoint = self.checkpointer.get_checkpoint_file()
            self._config_changes = config_changes(checkpoint, self.cfg)
            warn_of_changes(checkpoint, self._config_changes)
        super().resume_or_load(resume)

    def state_dict(self) -> dict[str, Any]:
        own = {"_trainer": self._trainer.state_dict(), "seed": self.seed, "config": self.cfg.dump()}
        return TrainerBase.state_dict(self) | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        TrainerBase.load_state_dict(self, state_dict)
        if "_trainer" in state_dict:
            state, amp = state_dict["_trainer"], self.cfg.SOLVER.AMP.ENABLED
            check_training_state(state, self.optimizer, amp, self._config_changes)
            self._trainer.load_state_dict(state)
        else:
            self._logger.warning("The checkpoint has no optimizer state: momentum starts from zero")
        if self.cfg.SEED < 0:
            self.seed = state_dict.get("seed", self.seed)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        return build_train_loader(cfg, VOCDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluators(cfg, dataset_name)

    def build_hooks(self) -> list[HookBase]:
        hooks = super().build_hooks()
        hooks = [RepeatablePreciseBN.like(h) if isinstance(h, PreciseBN) else h for h in hooks]
        at = next((n for n, h in enumerate(hooks) if isinstance(h, PeriodicWriter)), len(hooks))
        if self.cfg.VIS_PERIOD > 0:
            hooks.insert(at, DrawPictures(self.cfg, self.model))
        if self.cfg.TEST.EVAL_PERIOD > 0:
            losses = ValidationLosses(self.cfg, self.model)
            hooks.insert(at, EvalHook(self.cfg.TEST.EVAL_PERIOD, losses))
        for hook in hooks:
            if isinstance(hook, EvalHook):  # which writes the results to metrics.json
                hook._func = partial(finite, hook._func)
        evaluates = self.cfg.TEST.EVAL_PERIOD > 0 and self.cfg.DATASETS.TEST
        if evaluates:
            check_best_metric(self.cfg, self.build_evaluator)
        if not comm.is_main_process():
            return hooks
        if self.cfg.WANDB_PROJECT:
            hooks.insert(-1, WandbHook(self.cfg))  # the last is the writer, which clears pictures
        hooks.append(WarnOfMisfits(self.cfg))
        if evaluates:
            hooks.append(BestCheckpoint(self.checkpointer, best_metric(self.cfg)))
        return [*hooks, RunPage(self.cfg.OUTPUT_DIR, self.cfg.SOLVER.CHECKPOINT_PERIOD)]

    def build_writers(self) -> list[EventWriter]:
        return super().build_writers() + [ExchangePrinter()]

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: Sequence[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        if comm.get_world_size() > 1:
            for buffer in model.buffers():  # BatchNorm's: those of checkpoints, in all processes
                torch.distributed.broadcast(buffer, 0)
        return super().test(cfg, with_budgets(model, cfg.TEST.PROPOSALS.BUDGETS), evaluators)


def scale_nrpn_warmup(cfg: CfgNode, world_size: int) -> CfgNode:
    """Scale the nRPN's warm-up as Detectron2 scales the schedule (SOLVER.REFERENCE_WORLD_SIZE)."""
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference in (0, world_size):
        return cfg
    warmup = round(cfg.MODEL.NRPN.WARMUP_ITERS * reference / world_size)
    return changed(cfg, {"MODEL.NRPN.WARMUP_ITERS": warmup})


def use_deterministic_algorithms(cfg: CfgNode) -> None:
    """Only algorithms that give the same result every time; an operation without one raises.

    Raises:
        ValueError: for RoIPool on a GPU, whose gradient in torchvision is not deterministic.
    """
    model = cfg.MODEL
    pools = model.META_ARCHITECTURE != "ProposalNetwork" and model.DEVICE != "cpu"
    if pools and model.ROI_BOX_HEAD.POOLER_TYPE == "ROIPool":
        message = "SOLVER.DETERMINISTIC is True, and MODEL.ROI_BOX_HEAD.POOLER_TYPE 'ROIPool'"
        message += f" has no deterministic gradient on {model.DEVICE!r}; set it to 'ROIAlignV2'"
        raise ValueError(message)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
