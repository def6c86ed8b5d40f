"""Objects that nobody labelled: what trained models find off every label, best guesses first."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..utils.boxes import box_iou, lies_off
from .ground_truth import GroundTruth
from .second_look import can_look, judge, look_again

_ON = 0.5  # IoU with a label, from which on a detection shows what labelled objects look like
_OFF = 0.3  # IoU with every label, below which a box is a candidate
_ON_IGNORED = 0.5  # part of a box on an ignored label, from which on it belongs to that one
_SAME = 0.5  # IoU of boxes of one candidate


class Predictions(NamedTuple):
    """What one model finds in one image: K boxes."""

    boxes: np.ndarray  # (K, 4) x0, y0, x1, y1 in pixels of the image
    scores: np.ndarray  # (K,) from 0 to 1
    classes: np.ndarray  # (K,) -1: a proposal, which has none
    features: np.ndarray | None = None  # (K, V, F) of the second look; None: there was none


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
            is_detector = "instances" in output
            if is_detector:
                found = output["instances"]
                boxes, scores, classes = found.pred_boxes.tensor, found.scores, found.pred_classes
            else:
                found = output["proposals"]
                boxes, scores = found.proposal_boxes.tensor, found.objectness_logits.sigmoid()
                classes = torch.full_like(scores, -1).long()
            boxes, scores, classes = (x[scores >= min_score] for x in (boxes, scores, classes))
            features = []
            if is_detector and can_look(model):
                scores, *features = look_again(model, inputs, boxes, classes)
            arrays = (array.cpu().numpy() for array in (boxes, scores, classes, *features))
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
    judged = [_judged(found, truth) for found in predictions]
    if all(x is not None for x in judged):  # else their scores could not be compared
        predictions = judged
    for image_id, n in truth.image_index.items():
        of_models = []
        for found in (found[image_id] for found in predictions if image_id in found):
            off = _off_labels(found, truth, n)
            of_models.append(Predictions(*(array[off] for array in found[:3])))
        candidates += _clusters(image_id, of_models, truth.class_names)
    return sorted(candidates, key=lambda candidate: -candidate.score)


def _judged(
    found: Mapping[Hashable, Predictions], truth: GroundTruth
) -> dict[Hashable, Predictions] | None:
    """Multiply the scores of one model by the second judge's; None where that cannot judge."""
    order = [image_id for image_id in truth.image_index if image_id in found]
    if not order or any(found[image_id].features is None for image_id in order):
        return None
    counts = [len(found[image_id].scores) for image_id in order]
    images = np.repeat([truth.image_index[image_id] for image_id in order], counts)
    is_object = np.concatenate([_is_object(found[i], truth, truth.image_index[i]) for i in order])
    features = np.concatenate([found[image_id].features for image_id in order])
    factors = judge(features, is_object, images)
    if factors is None:
        return None
    return {
        image_id: found[image_id]._replace(scores=found[image_id].scores * factor)
        for image_id, factor in zip(order, np.split(factors, np.cumsum(counts)[:-1]))
    }


def _is_object(found: Predictions, truth: GroundTruth, n: int) -> np.ndarray:
    """Return (K,) what :func:`judge` learns from."""
    objects = truth.of_image(n)
    labels = truth.boxes[objects][~truth.ignored[objects]]
    on = (box_iou(found.boxes[:, None], labels) >= _ON).any(axis=1)
    return np.where(on, 1, np.where(_off_labels(found, truth, n), 0, -1))


def _off_labels(found: Predictions, truth: GroundTruth, n: int) -> np.ndarray:
    """Return (K,) whether a box lies off every label of image n."""
    objects = truth.of_image(n)
    return lies_off(found.boxes, truth.boxes[objects], truth.ignored[objects], _OFF, _ON_IGNORED)


def _clusters(
    image_id: Hashable, of_models: Sequence[Predictions], class_names: Sequence[str]
) -> Iterator[Candidate]:
    """Yield the best box with all that lie on it, then the best of the rest, and so on."""
    if not of_models:
        return
    boxes, scores, classes = map(np.concatenate, list(zip(*of_models))[:3])
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
        box = np.average(boxes[near], axis=0, weights=np.maximum(scores[near], 1e-12))
        box = box.round(2)
        if (box[2:] - box[:2] < 1).any():  # no format has such objects
            continue
        yield Candidate(
            image_id,
            tuple(box.tolist()),
            float(per_model.mean().round(4)),
            float((per_model > 0).mean()),
            class_names[votes[1:].argmax()] if votes[1:].any() else "",
        )
