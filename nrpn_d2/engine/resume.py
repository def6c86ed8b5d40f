"""A run that goes on with another config than the one it began with."""

import logging
import os
from typing import Any

import yaml
from detectron2.config import CfgNode
from torch.optim import Optimizer

from ..utils.config_file import flat_config
from ..utils.safe_load import CheckpointError, load_file

logger = logging.getLogger(__name__)

# The optimizer's state, which the checkpoint has, goes before these
_WITHOUT_EFFECT = (
    *("MODEL.WEIGHTS", "SOLVER.BASE_LR", "SOLVER.BIAS_LR_FACTOR", "SOLVER.MOMENTUM"),
    *("SOLVER.NESTEROV", "SOLVER.WEIGHT_DECAY", "SOLVER.WEIGHT_DECAY_BIAS"),
    "SOLVER.WEIGHT_DECAY_NORM",
)


def config_changes(checkpoint: str, cfg: CfgNode) -> dict[str, tuple[Any, Any]]:
    """Return what differs between the config of a run and the one it is resumed with.

    Args:
        checkpoint: a file of ``Trainer``. Those of version 0.1 have no config: nothing differs.

    Returns:
        Key -> (old value, new value), for keys that both configs have, except OUTPUT_DIR.

    Raises:
        CheckpointError: its config cannot be read.
    """
    try:
        text = load_file(checkpoint, mmap=True).get("trainer", {}).get("config", "{}")
        old = flat_config(yaml.safe_load(text))
    except (AttributeError, RecursionError, yaml.YAMLError) as error:
        message = f"{checkpoint}: the config in it cannot be read ({type(error).__name__})"
        raise CheckpointError(f"{message}; is it a checkpoint of this trainer?") from error
    new = flat_config(yaml.safe_load(cfg.dump()))
    keys = sorted(old.keys() & new.keys() - {"OUTPUT_DIR"})
    return {k: (old[k], new[k]) for k in keys if old[k] != new[k]}


def is_finished(checkpoint: str, cfg: CfgNode) -> bool:
    """Tell whether a run has its last checkpoint; the log lists how its config differs."""
    if not os.path.isfile(checkpoint):
        return False
    logger.info("%s is there: it is not trained again", checkpoint)
    what = "was trained with another config and is not repeated; delete its folder to train it anew"
    warn_of_changes(checkpoint, config_changes(checkpoint, cfg), what)
    return True


def warn_of_changes(
    checkpoint: str,
    changes: dict[str, tuple[Any, Any]],
    what: str = "is resumed with another config",
) -> None:
    """List the changes in the log, and say which have no effect."""
    if changes:
        lines = [
            f"{key}: {old!r} -> {new!r}{' (no effect)' * (key in _WITHOUT_EFFECT)}"
            for key, (old, new) in changes.items()
        ]
        logger.warning("%s %s:\n  %s", checkpoint, what, "\n  ".join(lines))


def check_training_state(
    state: dict[str, Any], optimizer: Optimizer, amp: bool, changes: dict[str, tuple[Any, Any]]
) -> None:
    """Check that a checkpoint's optimizer belongs to the same parameters.

    Args:
        state: of Detectron2's ``SimpleTrainer`` or ``AMPTrainer``.
        optimizer: of the resumed run.
        amp: whether that run trains in mixed precision.
        changes: see :func:`config_changes`.

    Raises:
        ValueError: naming the keys that may have been changed.
    """
    if amp and "grad_scaler" not in state:
        message = "SOLVER.AMP.ENABLED is True, and the run to be resumed was one without mixed"
        message += " precision; set it to False, or start a new run in another OUTPUT_DIR"
        raise ValueError(message)
    both = state["optimizer"]["param_groups"], optimizer.param_groups
    old, new = ([len(group["params"]) for group in groups] for groups in both)
    if old != new:
        changed = [key for key in changes if key.startswith(("MODEL.", "SOLVER."))]
        keys = ", ".join(changed) or "keys such as MODEL.BACKBONE.FREEZE_AT"
        message = f"The run to be resumed trained {sum(old)} parameters in {len(old)} groups, this"
        message += f" one {sum(new)} in {len(new)}; take back the change of {keys}, or start a new"
        raise ValueError(f"{message} run in another OUTPUT_DIR")
