"""Pictures of images of a dataset, as one or several models see them: tools/visualize.py."""

import os
from collections.abc import Callable, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from matplotlib.figure import Figure
from tqdm import tqdm

from ..checkpoint.trained_model import load_weights
from ..data.checks import check_registered
from ..data.mapper import annotated_mapper
from ..evaluation import pictures
from ..evaluation.panels import Panel, picture_grid
from ..evaluation.views import View, choose_images, view_image
from ..utils.saving import atomic_open
from ..utils.seeding import undisturbed
from .defaults import build_cfg, changed


class Images:
    """The images of a dataset, as a model sees them, which is called after its config file."""

    def __init__(
        self,
        config_file: str,
        opts: Sequence[str],
        dataset: str | None = None,
        what: str = "proposals",
    ):
        """
        Args:
            config_file, opts: see :func:`build_cfg`.
            dataset: by default, the first of DATASETS.TEST.
            what: to be drawn; decides whether weights are needed.

        Raises:
            ValueError: no such dataset, a model without an RPN, or weights that do not fit it.
        """
        self.name = os.path.splitext(os.path.basename(config_file))[0]
        if what == "anchors":  # nor is their file looked for
            opts = [*opts, "MODEL.WEIGHTS", ""]
        self.cfg = with_hard_negative_rpn(build_cfg(config_file, opts))
        if not (dataset or self.cfg.DATASETS.TEST):
            raise ValueError("DATASETS.TEST is empty; name a dataset with --dataset")
        self.dataset = dataset or self.cfg.DATASETS.TEST[0]
        check_registered(self.dataset, "--dataset" if dataset else "DATASETS.TEST")
        self.records = DatasetCatalog.get(self.dataset)
        self._map = annotated_mapper(self.cfg)
        self._model = build_model(self.cfg)
        of_proposals = self._model.proposal_generator.iou_of == "proposal"
        if what != "anchors" and (what != "labels" or of_proposals):
            load_weights(self.cfg, self._model)

    def why_none(self) -> str:
        """Return in words why the model has no hard negatives."""
        rpn, key = self._model.proposal_generator, "MODEL.RPN.NEGATIVE_SAMPLER.NAME"
        if not getattr(rpn.negative_sampler, "needs_hardness", False):
            return f"{key} is {self.cfg.MODEL.RPN.NEGATIVE_SAMPLER.NAME!r}, not 'NRPN' or 'OHEM'"
        if rpn.negative_rpn is None:
            return f"{self.cfg.MODEL.WEIGHTS} has no weights of an nRPN"
        return "the nRPN proposes no background"

    def view(self, n: int) -> View:
        return view_image(self._model, self._map(self.records[n]))

    def detect(self, n: int, min_score: float) -> tuple[np.ndarray, list[str]]:
        """Return a detector's boxes (K, 4) of score over ``min_score``, and their labels."""
        with undisturbed(self._model):
            (output,) = self._model([self._map(self.records[n])])
        sure = output["instances"][output["instances"].scores > min_score].to("cpu")
        names = MetadataCatalog.get(self.dataset).thing_classes
        labels = [f"{names[c]} {s:.2f}" for c, s in zip(sure.pred_classes, sure.scores)]
        return sure.pred_boxes.tensor.numpy(), labels


def with_hard_negative_rpn(cfg: CfgNode) -> CfgNode:
    """Return a config with a ``HardNegativeRPN`` in place of Detectron2's RPN, which it equals."""
    name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if name == "RPN":
        plain = {"MODEL.RPN.NEGATIVE_SAMPLER.NAME": "Random"}
        return changed(cfg, {"MODEL.PROPOSAL_GENERATOR.NAME": "HardNegativeRPN", **plain})
    if name != "HardNegativeRPN":
        message = f"MODEL.PROPOSAL_GENERATOR.NAME is {name!r}"
        raise ValueError(f"{message}; it must be 'HardNegativeRPN' or 'RPN'")
    return cfg


def draw(models: Sequence[Images], what: str, num: int, top: int, worst: bool, path: str) -> str:
    """Draw ``num`` images for each model, those of a second one below those of the first.

    Args:
        what, top, worst: see tools/visualize.py.
        path: of the picture to write.

    Returns:
        What was drawn, in a sentence.

    Raises:
        ValueError: there is nothing to draw.
    """
    first = models[0]
    nrpn = first.cfg.MODEL.NRPN
    limits = nrpn.FP_SCORE, nrpn.FP_IOU
    draw_view: dict[str, Callable[[View], list[Panel]]] = {
        "anchors": pictures.anchors,
        "labels": pictures.labels,
        "proposals": lambda v: pictures.proposals(v, top),
        "false-positives": lambda v: pictures.false_positives(v, top, *limits),
        "hard-negatives": lambda v: pictures.proposals(v, top) + pictures.hard_negatives(v, top),
    }
    chosen, note = choose_images(first.records, num), ""
    if what == "false-positives" and worst:
        seen = map(first.view, tqdm(range(len(first.records)), desc=first.dataset))
        counts = [int(pictures.confident_background(x, *limits).sum()) for x in seen]
        chosen = sorted(range(len(counts)), key=lambda n: -counts[n])[:num]
        note = f"; {sum(counts)} false positives in {len(counts)} images of {first.dataset}"
    if not chosen:
        raise ValueError(f"{first.dataset}: no image has an object to learn; nothing to draw")
    views = [[model.view(n) for n in chosen] for model in models]
    if what == "hard-negatives" and all(not v.hard.any() for row in views for v in row):
        raise ValueError(f"no hard negatives: {first.why_none()}")
    panels = [[draw_view[what](view) for view in row] for row in views]
    flat = [
        panel._replace(title=f"{model.name}\n{panel.title}") if len(models) > 1 else panel
        for model, row in zip(models, panels)
        for of_image in row
        for panel in of_image
    ]
    per_image = len(panels[0][0])
    columns = per_image if what == "hard-negatives" else len(chosen) if per_image == 1 else 4
    save(picture_grid(flat, columns), path)
    return f"Wrote {path}: {what} in {len(chosen)} images{note}"


def save(figure: Figure, path: str) -> None:
    """Write a figure, whole or not at all, making its folder; its suffix names the format."""
    with atomic_open(path, "wb") as f:
        figure.savefig(f, dpi=200, format=os.path.splitext(path)[1][1:].lower())
