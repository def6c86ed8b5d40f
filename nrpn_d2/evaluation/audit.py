"""Objects that nobody labelled: what trained models find off every label, best guesses first."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..utils.boxes import box_iou, covered_fraction
from .ground_truth import GroundTruth

_OFF = 0.3  # IoU with every label, below which a box is a candidate
_ON_IGNORED = 0.5  # part of a box on an ignored label, from which on it belongs to that one
_SAME = 0.5  # IoU of boxes of one candidate


class Predictions(NamedTuple):
    """What one model finds in one image: K boxes."""

    boxes: np.ndarray  # (K, 4) x0, y0, x1, y1 in pixels of the image
    scores: np.ndarray  # (K,) from 0 to 1
    classes: np.ndarray  # (K,) -1: a proposal, which has none


class Candidate(NamedTuple):
    """A place where there may be an object without a label."""

    image_id: Hashable
    box: tuple[float, ...]  # x0, y0, x1, y1
    score: float  # agreement times mean score: the mean over all models, 0 for one without a box
    agreement: float  # fraction of the models that have a box there
    class_name: str  # suggested; "" where the models only propose


@torch.no_grad()
def predict(
    model: Callable[[Sequence[dict[str, Any]]], Sequence[dict[str, Any]]],
    batches: Iterable[Sequence[dict[str, Any]]],
    min_score: float,
) -> dict[Hashable, Predictions]:
    """Return what a model finds in each image: detections or, without a detector, proposals."""
    predictions = {}
    for batch in batches:
        for inputs, output in zip(batch, model(batch)):
            if "instances" in output:
                found = output["instances"]
                boxes, scores, classes = found.pred_boxes, found.scores, found.pred_classes
            else:
                found = output["proposals"]
                boxes, scores = found.proposal_boxes, found.objectness_logits.sigmoid()
                classes = torch.full_like(scores, -1).long()
            kept = scores >= min_score
            arrays = (x[kept].cpu().numpy() for x in (boxes.tensor, scores, classes))
            predictions[inputs["image_id"]] = Predictions(*arrays)
    return predictions


def find_candidates(
    predictions: Sequence[Mapping[Hashable, Predictions]], truth: GroundTruth
) -> list[Candidate]:
    """Find what lies off every label, one candidate for all boxes of one place, best first.

    Args:
        predictions: of each model, by image id. An image is judged by the models that have it, so
            that none of cross-validation's judges what it was trained on.
    """
    candidates: list[Candidate] = []
    for image_id, n in truth.image_index.items():
        objects = truth.of_image(n)
        of_models = [
            _off_labels(found[image_id], truth, objects)
            for found in predictions
            if image_id in found
        ]
        candidates += _clusters(image_id, of_models, truth.class_names)
    return sorted(candidates, key=lambda candidate: -candidate.score)


def _off_labels(found: Predictions, truth: GroundTruth, objects: slice) -> Predictions:
    labels, ignored = truth.boxes[objects], truth.ignored[objects]
    off = (box_iou(found.boxes[:, None], labels) < _OFF).all(axis=1)
    off &= (covered_fraction(found.boxes[:, None], labels[ignored]) < _ON_IGNORED).all(axis=1)
    return Predictions(*(array[off] for array in found))


def _clusters(
    image_id: Hashable, of_models: Sequence[Predictions], class_names: Sequence[str]
) -> Iterator[Candidate]:
    """Yield the best box with all that lie on it, then the best of the rest, and so on."""
    if not of_models:
        return
    boxes, scores, classes = map(np.concatenate, zip(*of_models))
    models = np.repeat(np.arange(len(of_models)), [len(found.scores) for found in of_models])
    left = np.ones(len(scores), bool)
    for best in np.argsort(-scores, kind="stable"):
        if not left[best]:
            continue
        near = np.flatnonzero(left & (box_iou(boxes[best], boxes) >= _SAME))
        left[near] = left[best] = False
        per_model = np.zeros(len(of_models))
        np.maximum.at(per_model, models[near], scores[near])
        votes = np.bincount(classes[near] + 1, scores[near], len(class_names) + 1)
        box = np.average(boxes[near], axis=0, weights=scores[near])
        yield Candidate(
            image_id,
            tuple(box.tolist()),
            float(per_model.mean()),
            float((per_model > 0).mean()),
            class_names[votes[1:].argmax()] if votes[1:].any() else "",
        )
