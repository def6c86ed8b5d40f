"""Alternating training: RPN and detector in turn, which share a backbone in the end.

The four steps of Faster R-CNN, Sec. 3.2, each a run in a folder of its own; a step starts from the
weights that an arrow leads to it from, and a detector trains on the proposals of the step before:

    pre-trained -> step1_rpn       (its proposals are all that remains of it)
    pre-trained -> step2_detector -> step3_rpn, step4_detector: backbone frozen, own layers trained

Layers of the RPN's own start anew in step 3, as in the authors' code; the detector's go on in step
4. The final model has the RPN of step 3, and everything else of step 4.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.utils import comm
from torch import nn

from ..checkpoint.checkpointer import NRPNCheckpointer
from ..checkpoint.trained_model import load_weights
from ..data.proposal_files import Proposals, save_proposals
from ..utils.safe_load import CheckpointError, load_file
from ..utils.saving import atomic_open
from .defaults import changed
from .resume import is_finished
from .trainer import Trainer

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """A step: ``start`` and ``proposals`` are numbers of steps before it; 0 for none."""

    folder: str
    start: int
    proposals: int
    freezes: bool


STEPS = (
    Step("step1_rpn", start=0, proposals=0, freezes=False),
    Step("step2_detector", start=0, proposals=1, freezes=False),
    Step("step3_rpn", start=2, proposals=0, freezes=True),
    Step("step4_detector", start=2, proposals=3, freezes=True),
)
FINAL = "model_final"


class FrozenBackboneTrainer(Trainer):
    """Trains all but the backbone: neither its parameters change, nor what it has as statistics."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        model.backbone.requires_grad_(False)
        return model

    def run_step(self) -> None:
        # Here, since evaluations and Detectron2's trainer set the mode of the whole model. In
        # evaluation mode batch normalisation uses its running statistics, and leaves them
        self.checkpointer.model.backbone.eval()
        super().run_step()


def train_alternating(cfg: CfgNode, iterations: Sequence[int] = ()) -> dict[str, Any] | None:
    """Take the four steps and write OUTPUT_DIR/model_final.pth.

    Steps that have ended are not repeated, one that was interrupted goes on.

    Args:
        cfg: of joint training.
        iterations: of each step; by default SOLVER.MAX_ITER each.

    Returns:
        The results of the evaluation on DATASETS.TEST.

    Raises:
        ValueError: the config has no RPN and detector to train, or ``iterations`` are not four.
    """
    check_alternating(cfg, iterations)
    for number, step in enumerate(STEPS):
        step_cfg = config_of_step(cfg, number, iterations)
        _train_step(step_cfg, FrozenBackboneTrainer if step.freezes else Trainer)
        if any(later.proposals == number + 1 for later in STEPS):
            for name, path in zip(cfg.DATASETS.TRAIN, proposal_files(cfg, number)):
                _propose(step_cfg, cfg, name, path)
    path = os.path.join(cfg.OUTPUT_DIR, f"{FINAL}.pth")
    model = Trainer.build_model(cfg)
    join_halves(model, *(_final(cfg, number) for number in (2, 3)))
    if comm.is_main_process():
        NRPNCheckpointer.from_config(cfg, model).write(FINAL)
    comm.synchronize()
    logger.info("The final model is %s", path)
    return Trainer.test(cfg, model) if cfg.DATASETS.TEST else None


def check_alternating(cfg: CfgNode, iterations: Sequence[int] = ()) -> None:
    """Check that a config has both halves, and the number of iterations.

    Raises:
        ValueError: naming the key or option, and what to do.
    """
    if iterations and (len(iterations) != len(STEPS) or min(iterations) < 1):
        message = f"--iterations is {' '.join(map(str, iterations))}; it must be"
        raise ValueError(f"{message} {len(STEPS)} positive numbers, one for each step")
    name = cfg.MODEL.META_ARCHITECTURE
    if not issubclass(META_ARCH_REGISTRY.get(name), GeneralizedRCNN):
        message = f"MODEL.META_ARCHITECTURE is {name!r}, which has no ROI heads to alternate with"
        remedy = "it must be 'GeneralizedRCNN' or a subclass, or take train_net.py"
        raise ValueError(f"{message}; {remedy}")
    if cfg.MODEL.LOAD_PROPOSALS or cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals":
        raise ValueError(
            "The config trains on proposals from files (MODEL.LOAD_PROPOSALS, "
            "MODEL.PROPOSAL_GENERATOR.NAME 'PrecomputedProposals'); alternating training makes its "
            "own: give the config of joint training, with its RPN"
        )


def config_of_step(cfg: CfgNode, number: int, iterations: Sequence[int] = ()) -> CfgNode:
    """Return the config of a step (0 to 3), made from that of joint training.

    With other ``iterations`` the learning rate falls, and the nRPN joins, at the same part of the
    schedule.
    """
    step, solver = STEPS[number], cfg.SOLVER
    changes: dict[str, Any] = {
        "OUTPUT_DIR": os.path.join(cfg.OUTPUT_DIR, step.folder),
        "DATASETS.TEST": (),
        "TEST.EVAL_PERIOD": 0,
    }
    if iterations:
        part = iterations[number] / solver.MAX_ITER
        changes |= {
            "SOLVER.MAX_ITER": iterations[number],
            "SOLVER.STEPS": tuple(round(part * at) for at in solver.STEPS),
            "MODEL.NRPN.WARMUP_ITERS": round(part * cfg.MODEL.NRPN.WARMUP_ITERS),
        }
    if step.start:
        changes["MODEL.WEIGHTS"] = _final(cfg, step.start - 1)
    if step.proposals:
        changes |= {
            "MODEL.LOAD_PROPOSALS": True,
            "MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals",
            "DATASETS.PROPOSAL_FILES_TRAIN": tuple(proposal_files(cfg, step.proposals - 1)),
            "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN,
        }
    else:
        changes["MODEL.META_ARCHITECTURE"] = "ProposalNetwork"
    return changed(cfg, changes)


def proposal_files(cfg: CfgNode, number: int) -> list[str]:
    """Return the path for the proposals of a step (0 to 3) in each of DATASETS.TRAIN."""
    folder = os.path.join(cfg.OUTPUT_DIR, STEPS[number].folder)
    return [os.path.join(folder, f"proposals_{name}.pkl") for name in cfg.DATASETS.TRAIN]


def join_halves(model: nn.Module, rpn_file: str, detector_file: str) -> None:
    """Fill a model with the proposal generator of one checkpoint and the rest of another.

    Raises:
        CheckpointError: the backbones of the two differ.
    """
    rpn, detector = (load_file(path)["model"] for path in (rpn_file, detector_file))
    for name, value in rpn.items():
        if name.startswith("backbone.") and not torch.equal(value, detector[name]):
            message = f"{name} differs between {rpn_file} and {detector_file}, which were trained"
            message += " with the same frozen backbone; delete both folders, and start again"
            raise CheckpointError(message)
    own = {name: value for name, value in rpn.items() if name.startswith("proposal_generator.")}
    model.load_state_dict(detector | own)


def _train_step(cfg: CfgNode, trainer_class: type[Trainer]) -> None:
    if is_finished(os.path.join(cfg.OUTPUT_DIR, f"{FINAL}.pth"), cfg):
        return
    logger.info("Training %s for %d iterations", cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER)
    if comm.is_main_process():
        with atomic_open(os.path.join(cfg.OUTPUT_DIR, "config.yaml"), "w") as f:
            f.write(cfg.dump())
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    comm.synchronize()  # the main process has written what all read next


def _propose(step_cfg: CfgNode, cfg: CfgNode, name: str, path: str) -> None:
    """Write a step's proposals for one dataset: as many as joint training would give the heads."""
    weights, rpn = os.path.join(step_cfg.OUTPUT_DIR, f"{FINAL}.pth"), cfg.MODEL.RPN
    # Older ones are of a step that was deleted since
    if os.path.isfile(path) and os.path.getmtime(path) >= os.path.getmtime(weights):
        return
    changes = {
        "MODEL.WEIGHTS": weights,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": rpn.PRE_NMS_TOPK_TRAIN,
        "MODEL.RPN.POST_NMS_TOPK_TEST": rpn.POST_NMS_TOPK_TRAIN,
    }
    step_cfg = changed(step_cfg, changes)
    model = Trainer.build_model(step_cfg)
    load_weights(step_cfg, model)
    parts = comm.gather(_propose_here(model.eval(), Trainer.build_test_loader(step_cfg, name)))
    if comm.is_main_process():
        save_proposals(path, {k: v for part in parts for k, v in part.items()})
        logger.info("Wrote the proposals for %s to %s", name, path)
    comm.synchronize()


@torch.no_grad()
def _propose_here(model: nn.Module, loader: Iterable[list[dict[str, Any]]]) -> dict[Any, Proposals]:
    proposals = {}
    for inputs in loader:
        for image, output in zip(inputs, model(inputs)):
            of_image = output["proposals"].to("cpu")
            boxes, logits = of_image.proposal_boxes.tensor, of_image.objectness_logits
            proposals[image["image_id"]] = Proposals(boxes.numpy(), logits.numpy())
    return proposals


def _final(cfg: CfgNode, number: int) -> str:
    return os.path.join(cfg.OUTPUT_DIR, STEPS[number].folder, f"{FINAL}.pth")
