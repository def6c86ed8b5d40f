"""From views to panels: proposals, false positives, hard negatives, anchors and their labels."""

from collections.abc import Sequence

import numpy as np
import torch
from cycler import cycler
from detectron2.data.detection_utils import read_image
from matplotlib.figure import Figure
from torchvision.ops import nms

from ..data.anchors.reach import REACHED
from ..utils.boxes import box_iou
from .figures import COLORS, draw_legend
from .panels import OBJECT, Kind, Layer, Panel, crop
from .proposal_errors import HIT_IOU, KINDS
from .score_evaluator import NUM_BINS, calibration
from .views import View, evenly_spread

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLORS
LEVELS = cycler(style=("-", "--", ":")) * cycler(color=(GREEN, PURPLE, SKY, BLACK))
IGNORED = Kind("object to ignore", BLACK, (0, (3, 1.5)))
ON_OBJECT = Kind(f"proposal on an object (IoU ≥ {HIT_IOU}), with score", BLUE)
ELSEWHERE = Kind("proposal elsewhere, with score", VERMILION, (0, (1, 1)), 2)
FALSE_POSITIVE = Kind("false positive, with score", VERMILION)
DETECTION = Kind("detection, with class and score", GREEN)
OF_NRPN = Kind("nRPN's proposal, with its score", PURPLE)
BELIEVED = Kind("hard negative, believed by the RPN, with its score", VERMILION)
NOT_BELIEVED = Kind("other hard negative, with the RPN's score", GREEN, (0, (1, 1)), 2)
IN_REACH = Kind(f"best anchor of an object, with IoU (≥ {REACHED[0]:g})", BLUE)
OUT_OF_REACH = Kind("the same of an object out of reach", VERMILION, (0, (1, 1)), 2)
LABELLED = {
    of: Kind(f"object's anchor: IoU of the {of} → score's target", BLUE)
    for of in ("anchor", "proposal")
}


def proposals(view: View, top: int) -> list[Panel]:
    """Draw the ``top`` best proposals (paper, Fig. 1)."""
    elsewhere = np.isin(view.kinds[:top], [KINDS.index(k) for k in ("localisation", "background")])
    layers = [
        _scored(kind, view.proposals[:top][chosen], view.proposal_scores[:top][chosen])
        for kind, chosen in ((ELSEWHERE, elsewhere), (ON_OBJECT, ~elsewhere))
    ]
    title = f"{len(elsewhere)} best proposals: {(~elsewhere).sum()} on objects"
    return [_panel(view, title, layers)]


def confident_background(view: View, score: float, iou: float) -> np.ndarray:
    """Return (K,) bool: proposals of score over ``score`` whose IoU with all is below ``iou``.

    Those on an object to ignore are none.
    """
    background = (view.proposal_ious < iou) & (view.kinds != KINDS.index("ignored"))
    return background & (view.proposal_scores > score)


def false_positives(view: View, top: int, score: float, iou: float) -> list[Panel]:
    """Draw the best of :func:`confident_background`."""
    wrong = confident_background(view, score, iou)
    layer = _scored(FALSE_POSITIVE, view.proposals[wrong][:top], view.proposal_scores[wrong])
    return [_panel(view, _count(wrong.sum(), "false positive"), [layer])]


def mined(view: View, top: int) -> list[Panel]:
    """Draw the miner's false positives, anchors, without those that nearly repeat another."""
    layer = _distinct(view, view.is_fp, FALSE_POSITIVE, top)
    return [_panel(view, f"{_count(view.is_fp.sum(), 'false positive')} mined", [layer])]


def hard_negatives(view: View, top: int) -> list[Panel]:
    """Draw the nRPN's best proposals (paper, Fig. 4b), and the hard negatives that are chosen."""
    panels = []
    if view.nrpn_proposals is not None:
        layer = _scored(OF_NRPN, view.nrpn_proposals[:top], view.nrpn_scores)
        panels.append(_panel(view, f"nRPN's {len(layer.boxes)} best", [layer]))
    if panels or view.hard.any():
        believed = view.hard & view.is_fp
        layers = [
            _distinct(view, view.hard & ~view.is_fp, NOT_BELIEVED, top),
            _distinct(view, believed, BELIEVED, top),
        ]
        title = f"{_count(view.hard.sum(), 'hard negative')}, the RPN believes {believed.sum()}"
        panels.append(_panel(view, title, layers))
    return panels


def detections(view: View, boxes: np.ndarray, labels: Sequence[str]) -> Panel:
    return _panel(view, _count(len(boxes), "detection"), [Layer(DETECTION, boxes, labels)])


def anchors(view: View) -> list[Panel]:
    """Draw the set of anchors at the image's centre, and the best anchor of each object."""
    image = read_image(view.file_name, "RGB")
    middle = np.array([image.shape[1], image.shape[0]]) / 2
    centres = (view.anchors[:, :2] + view.anchors[:, 2:]) / 2
    layers = []
    for level, look in zip(np.unique(view.levels), LEVELS):
        of_level = np.flatnonzero(view.levels == level)
        place = centres[of_level[np.abs(centres[of_level] - middle).sum(axis=1).argmin()]]
        boxes = view.anchors[of_level[np.isclose(centres[of_level], place).all(axis=1)]]
        layers.append(Layer(Kind(f"anchors of feature map {level + 1}", **look), boxes))
    boxes = np.concatenate([layer.boxes for layer in layers])
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    of_place = f"{len(boxes)} anchors of a place: {sides.min():.0f}² to {sides.max():.0f}² pixels"
    ious = box_iou(view.objects[:, None], view.anchors)  # (G, R)
    best, iou = ious.argmax(axis=1), ious.max(axis=1, initial=0)
    reached = iou >= REACHED[0]
    matched = [
        _scored(kind, view.anchors[best[chosen]], iou[chosen])
        for kind, chosen in ((IN_REACH, reached), (OUT_OF_REACH, ~reached))
    ]
    title = f"{reached.sum()} of {_count(len(iou), 'object')} in reach"
    return [Panel(of_place, image, layers), _panel(view, title, matched, image)]


def labels(view: View) -> list[Panel]:
    """Draw some objects with the anchors that are labelled as them, of best to worst IoU."""
    image = read_image(view.file_name, "RGB")
    positive = np.flatnonzero(view.labels == 1)
    nearest = box_iou(view.anchors[positive][:, None], view.objects).argmax(axis=1)
    panels = []
    for g in evenly_spread(len(view.objects), 4):
        own = np.flatnonzero(nearest == g)
        own = own[np.argsort(-view.ious[positive[own]])]
        shown = own[evenly_spread(len(own), 3)]
        texts = [f"{view.target_ious[p]:.2f} → {view.targets[p]:.2f}" for p in shown]
        layer = Layer(LABELLED[view.iou_of], view.anchors[positive[shown]], texts)
        best = view.ious[positive[own]].max(initial=0)
        title = f"{_count(len(own), 'anchor')}, IoU up to {best:.2f}"
        boxes = np.concatenate([view.objects[g : g + 1], layer.boxes])
        low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        side = 1.3 * (high - low).max()
        panels.append(crop(_panel(view, title, [layer], image), (low + high) / 2, side))
    return panels


def calibration_of(views: Sequence[View]) -> dict[str, float]:
    """Return :func:`calibration` of all proposals but those on objects to ignore."""
    counted = [view.kinds != KINDS.index("ignored") for view in views]
    scores = [view.proposal_scores[chosen] for view, chosen in zip(views, counted)]
    ious = [view.proposal_ious[chosen] for view, chosen in zip(views, counted)]
    return calibration(np.concatenate(scores).astype(np.float64), np.concatenate(ious))


def calibration_figure(bins: dict[str, float]) -> Figure:
    """Draw mean IoU against mean score in the bins of :func:`calibration`."""
    scores, ious, shares = (
        np.array([bins[f"{kind}:{b}"] for b in range(NUM_BINS)])
        for kind in ("score", "IoU", "share")
    )
    figure = Figure(figsize=(4.2, 4.6), layout="constrained")
    axes = figure.subplots()
    lines = axes.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1)
    lines += axes.plot(scores, ious, color=BLUE, marker="o")
    centres = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    bars = axes.bar(centres, shares / 100, 0.9 / NUM_BINS, color=ORANGE, alpha=0.4, zorder=0)
    axes.set(xlabel="mean score", ylabel="mean IoU, share", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"proposals' scores: ECE {bins['ECE']:.3f}")
    axes.grid(alpha=0.3)
    draw_legend(figure, [*lines, bars], ["score = IoU", "proposals", "share of them"])
    return figure


def _panel(
    view: View, title: str, layers: Sequence[Layer], image: np.ndarray | None = None
) -> Panel:
    image = read_image(view.file_name, "RGB") if image is None else image
    objects = Layer(OBJECT, view.objects), Layer(IGNORED, view.ignored)
    return Panel(title, image, [*objects, *layers])


def _scored(kind: Kind, boxes: np.ndarray, scores: np.ndarray) -> Layer:
    return Layer(kind, boxes, [f"{score:.2f}" for score in scores[: len(boxes)]])


def _distinct(view: View, chosen: np.ndarray, kind: Kind, top: int) -> Layer:
    """Return the chosen anchors of best score that do not nearly repeat a better one."""
    boxes, scores = view.anchors[chosen], view.scores[chosen].astype(np.float64)
    kept = nms(torch.as_tensor(boxes), torch.as_tensor(scores), 0.5)[:top].numpy()
    return _scored(kind, boxes[kept], scores[kept])


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
