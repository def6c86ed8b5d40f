"""Losses on the test sets while a model trains, as ``validation/*`` scalars."""

import logging
import zlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import ROIHeads
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import BaseKeypointRCNNHead, BaseMaskRCNNHead
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

from ..data.loader import NothingToLearn, build_validation_loader
from ..utils.seeding import seed_all, undisturbed
from .train_loop import proposals_of_any_prediction, rpns_of

logger = logging.getLogger(__name__)
# What gives losses in training mode, besides the model itself; what is inside is evaluated
_WITH_LOSSES = (RPN, ROIHeads, BaseMaskRCNNHead, BaseKeypointRCNNHead, SemSegFPNHead)


class ValidationLosses:
    """Called without arguments, as by an ``EvalHook`` in all processes, it returns the losses.

    Datasets without what the losses need, such as objects, are skipped with a message.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self._model = getattr(model, "module", model)
        self._loaders = {}
        for name in cfg.DATASETS.TEST:
            try:
                self._loaders[name] = build_validation_loader(cfg, name)
            except NothingToLearn as error:
                logger.warning("No losses on test images: %s", error)
        self._several = len(cfg.DATASETS.TEST) > 1

    def __call__(self) -> dict[str, float]:
        """Return "validation/NAME" -> mean over images; of several datasets "DATASET/NAME".

        NAME is that of a training loss without "loss_", or "total". A name with "loss" in it would
        be one more column of Detectron2's log line, and its median over evaluations.
        """
        results = {}
        for name, loader in self._loaders.items():
            prefix = f"validation/{name}/" if self._several else "validation/"
            losses = mean_losses(self._model, loader)
            listed = "  ".join(f"{loss}: {value:.4g}" for loss, value in losses.items())
            logger.info("Losses on %s: %s", name, listed)
            results.update({prefix + loss: value for loss, value in losses.items()})
        return results


def mean_losses(model: nn.Module, batches: Iterable[list[dict[str, Any]]]) -> dict[str, float]:
    """Return the mean over images of each loss and of their sum; the model stays as it is.

    Batch normalisation and dropout are those of evaluation. What is sampled depends on the image
    alone, so that the losses of two evaluations, and of any number of processes, can be compared.

    Args:
        batches: of inputs with "instances"; each process has its own part.
    """
    sums: dict[str, float] = defaultdict(float)
    iteration = get_event_storage().iter  # the nRPN has a warm-up
    # One image at a time: its losses are to be normalised by itself
    with undisturbed(model), EventStorage(iteration), proposals_of_any_prediction(rpns_of(model)):
        for module in model.modules():
            module.training = module is model or isinstance(module, _WITH_LOSSES)
        for inputs in (image for batch in batches for image in batch):
            seed_all(0, zlib.crc32(str(inputs["image_id"]).encode()))
            losses = model([inputs])
            for name, loss in losses.items():
                sums[name.removeprefix("loss_")] += float(loss)
            sums["total"] += float(sum(losses.values()))
            sums["images"] += 1
    total: dict[str, float] = defaultdict(float)
    for part in comm.all_gather(dict(sums)):
        for name, value in part.items():
            total[name] += value
    images = total.pop("images")
    return {name: value / images for name, value in total.items()}
