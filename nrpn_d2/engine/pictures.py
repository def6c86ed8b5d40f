"""What the networks see while they train: pictures, histograms and calibration of test images."""

import glob
import logging
import math
import os
import re

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from ..data.mapper import annotated_mapper
from ..evaluation import pictures
from ..evaluation.panels import picture_grid
from ..evaluation.views import choose_images, view_image
from ..modeling.hard_negative_rpn import HardNegativeRPN
from ..utils.saving import atomic_open

logger = logging.getLogger(__name__)

NUM_IMAGES = 4
TOP = 10  # boxes of each kind that are drawn
MAX_KEPT = 20  # iterations whose pictures are kept


class DrawPictures(HookBase):
    """Every VIS_PERIOD iterations, looks at the same images of the first of DATASETS.TEST.

    Gives TensorBoard pictures, histograms and ``calibration/*``; writes the pictures into
    OUTPUT_DIR/pictures, too. They take the place of Detectron2's of a training image (those that
    its mask heads draw stay). To be registered in all processes, before ``PeriodicWriter``; the
    main one looks.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self._cfg = cfg
        self._model = getattr(model, "module", model)
        self._folder = os.path.join(cfg.OUTPUT_DIR, "pictures")
        self._inputs: list[dict] = []

    def before_train(self) -> None:
        rpn = getattr(self._model, "proposal_generator", None)
        if not isinstance(rpn, HardNegativeRPN):
            return  # Detectron2 draws
        if hasattr(self._model, "vis_period"):
            self._model.vis_period = 0
        if not comm.is_main_process():
            return
        names = self._cfg.DATASETS.TEST
        records = DatasetCatalog.get(names[0]) if names else []
        mapper = annotated_mapper(self._cfg)
        self._inputs = [mapper(records[n]) for n in choose_images(records, NUM_IMAGES)]
        if not self._inputs:
            where = f"{names[0]!r} has no object to learn" if names else "DATASETS.TEST is empty"
            logger.warning("No pictures every VIS_PERIOD iterations: %s", where)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._cfg.VIS_PERIOD == 0 and self._inputs:
            self._look(done, self.trainer.storage)

    def _look(self, done: int, storage: EventStorage) -> None:
        with_nrpn = done > self._model.proposal_generator.warmup_iters
        views = [view_image(self._model, inputs, with_nrpn) for inputs in self._inputs]
        for n, view in enumerate(views):
            panels = [
                *pictures.proposals(view, TOP),
                *pictures.mined(view, TOP),
                *pictures.hard_negatives(view, TOP),
            ]
            stem = os.path.splitext(os.path.basename(view.file_name))[0]
            # A file name has 255 bytes at most, and TensorBoard's texts are UTF-8
            stem = stem.encode("ascii", "backslashreplace")[:100].decode()
            self._put(f"{n}_{stem}", picture_grid(panels, len(panels)), done, storage)
        for name, scores in {
            "objects": [view.scores[view.labels == 1] for view in views],
            "background": [view.scores[view.labels == 0] for view in views],
            "hard_negatives": [view.scores[view.hard] for view in views],
        }.items():
            scores = torch.as_tensor(np.concatenate(scores))
            if len(scores):
                storage.put_histogram(f"objectness/{name}", scores, bins=100)
        bins = pictures.calibration_of(views)
        for name, value in bins.items():
            if math.isfinite(value):
                tag = f"calibration/{name.replace(':', '_')}"
                storage.put_scalar(tag, value, smoothing_hint=False)
        self._put("calibration", pictures.calibration_figure(bins), done, storage)
        self._drop_old()
        hard = sum(view.hard.sum() for view in views)
        believed = sum((view.hard & view.is_fp).sum() for view in views)
        logger.info(
            "%d test images: %.3g false positives per image; %s; ECE of proposals %.3f: see %s",
            len(views),
            sum(view.is_fp.sum() for view in views) / len(views),
            f"the RPN believes {believed} of {hard} hard negatives",
            bins["ECE"],
            self._folder,
        )

    def _put(self, name: str, figure: Figure, done: int, storage: EventStorage) -> None:
        """Give a picture to TensorBoard, and write it."""
        figure.set_dpi(100)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        storage.put_image(f"pictures/{name}", pixels.transpose(2, 0, 1))
        with atomic_open(os.path.join(self._folder, f"{name}_{done:07d}.jpg"), "wb") as f:
            Image.fromarray(pixels).save(f, "JPEG", quality=90)

    def _drop_old(self) -> None:
        """Delete every second iteration's pictures where there are too many."""
        paths: dict[int, list[str]] = {}
        for path in glob.glob(os.path.join(glob.escape(self._folder), "*.jpg")):
            if match := re.search(r"_(\d{7,})\.jpg$", path):
                paths.setdefault(int(match[1]), []).append(path)
        if len(paths) > MAX_KEPT:
            for iteration in sorted(paths)[1::2]:
                for path in paths[iteration]:
                    os.remove(path)
