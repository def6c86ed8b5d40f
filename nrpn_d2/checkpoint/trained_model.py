"""Load a trained model to use it: evaluation, prediction and export need all of its weights."""

import os

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from .checkpointer import NRPNCheckpointer, differences, last_checkpoint
from .nrpn_weights import NRPN_PREFIX


class _CompleteCheckpointer(NRPNCheckpointer):
    """Refuses a checkpoint that does not fill the model, or has something left over.

    An nRPN that it does not fill is dropped from the model: it would propose noise.
    """

    def _log_incompatible_keys(self, incompatible) -> None:
        # inference does without the nRPN, proposals without the detector's heads, and a detector on
        # the proposals of a file without an RPN
        spare = (NRPN_PREFIX,)
        if not hasattr(self.model, "roi_heads"):
            spare += ("roi_heads.",)
        elif self.model.proposal_generator is None:
            spare += ("proposal_generator.",)
        problems = [p for p in differences(incompatible) if not p.startswith(spare)]
        if problems:
            raise ValueError("\n  ".join(["MODEL.WEIGHTS and the config do not fit:", *problems]))
        if any(name.startswith(NRPN_PREFIX) for name in incompatible.missing_keys):
            self.model.proposal_generator.negative_rpn = None


def load_weights(cfg: CfgNode, model: nn.Module) -> None:
    """Fill ``model`` from ``MODEL.WEIGHTS``; only the nRPN's weights may be missing or left over.

    Raises:
        ValueError: if there are no weights, or naming each one that is missing, left over, or of
            another shape.
        CheckpointError: for a file that cannot be read, or is refused.
    """
    if not cfg.MODEL.WEIGHTS:
        raise ValueError("MODEL.WEIGHTS is empty; give the checkpoint of a trained model")
    _CompleteCheckpointer.from_config(cfg, model).load(cfg.MODEL.WEIGHTS)


def load_model(cfg: CfgNode) -> nn.Module:
    """Return the model of the config in evaluation mode; for its weights see load_weights."""
    model = build_model(cfg)
    load_weights(cfg, model)
    return model.eval()


def of_run(folder: str) -> tuple[str, str]:
    """Return a training's config file and last checkpoint; raise a ValueError if one is missing."""
    config, weights = os.path.join(folder, "config.yaml"), last_checkpoint(folder)
    if not os.path.isfile(config) or not weights:
        message = f"{folder} is not the OUTPUT_DIR of a training"
        raise ValueError(f"{message}: config.yaml or a checkpoint is missing")
    return config, weights
