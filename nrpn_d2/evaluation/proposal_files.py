"""
Proposals as files of any method: written, read, checked and evaluated without a model.

Two formats, told apart by the ending:

.pkl   Detectron2's, for MODEL.LOAD_PROPOSALS and DATASETS.PROPOSAL_FILES_*: a dict with "ids",
       "boxes" (a (K, 4) array per image), "objectness_logits" ((K,) each) and "bbox_mode".
.json  COCO's result format, a list of {"image_id", "category_id", "bbox", "score"}; bbox is x, y,
       width, height. Scores that all lie in [0, 1] are probabilities, others are logits.
"""

import json
import os
import pickle
from typing import NamedTuple

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances

from ..utils.safe_load import load_file
from ..utils.saving import atomic_open
from .boxes import check_boxes
from .ground_truth import load_ground_truth
from .output import WritingEvaluators
from .proposal_errors import ProposalErrorEvaluator
from .recall_evaluator import ProposalRecallEvaluator


class Proposals(NamedTuple):
    """K proposals of one image, best first."""

    boxes: np.ndarray  # (K, 4) float32: x0, y0, x1, y1 in pixels
    logits: np.ndarray  # (K,) float32


def save_proposals(path, proposals):
    """
    Args:
        path (str): ends in .pkl or .json.
        proposals (dict): image id -> :class:`Proposals`. In a .json, images without proposals
            leave no trace; a .pkl for Detectron2's loader needs every image of the dataset.
    """
    _check_ending(path)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    if path.endswith(".pkl"):
        content = {
            "ids": list(proposals),
            "boxes": [found.boxes for found in proposals.values()],
            "objectness_logits": [found.logits for found in proposals.values()],
            "bbox_mode": BoxMode.XYXY_ABS.value,
        }
        with atomic_open(path, "wb") as f:
            pickle.dump(content, f)
        return
    as_probability = not are_ranks(proposals)
    results = []
    for image_id, (boxes, logits) in proposals.items():
        scores = logits.astype(np.float64)
        scores = 1 / (1 + np.exp(-scores)) if as_probability else scores
        boxes = BoxMode.convert(boxes.astype(np.float64), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        results += [
            {"image_id": image_id, "category_id": 1, "bbox": box, "score": score}
            for box, score in zip(boxes.tolist(), scores.tolist())
        ]
    with atomic_open(path, "w") as f:
        json.dump(results, f)


def load_proposals(path):
    """
    Returns:
        dict: image id -> :class:`Proposals`.

    Raises:
        ValueError: naming ``path``, for another ending or content, boxes that are not finite or of
            negative width or height, an image that occurs twice, or no boxes at all.
        CheckpointError: for a pickle with anything but arrays and plain containers, which is not
            run.
    """
    _check_ending(path)
    try:
        per_image = list(_from_pickle(path) if path.endswith(".pkl") else _from_json(path))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} is not a proposal file: {type(e).__name__}: {e}") from e
    proposals = {}
    for image_id, boxes, logits in per_image:
        if image_id in proposals:
            raise ValueError(f"{path}: image {image_id!r} occurs twice")
        boxes, logits = np.asarray(boxes, np.float32), np.asarray(logits, np.float32)
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        check_boxes(boxes, logits, f"{path}: image {image_id!r}")
        order = np.argsort(-logits, kind="stable")
        proposals[image_id] = Proposals(boxes[order], logits[order])
    if not any(len(found.boxes) for found in proposals.values()):
        raise ValueError(f"{path} has no boxes at all")
    return proposals


def _check_ending(path):
    if not path.endswith((".pkl", ".json")):
        raise ValueError(f"{path}: a proposal file ends in .pkl (Detectron2) or .json (COCO)")


def _from_pickle(path):
    content = load_file(path)
    # Detectron's first version has other names.
    ids = content["ids"] if "ids" in content else content["indexes"]
    scores = content["objectness_logits" if "objectness_logits" in content else "scores"]
    mode = BoxMode(content.get("bbox_mode", BoxMode.XYXY_ABS))
    if mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        raise ValueError(f"{path}: bbox_mode {mode.name} is not supported")
    if not len(ids) == len(content["boxes"]) == len(scores):
        raise ValueError(
            f"{path}: {len(ids)} ids, boxes of {len(content['boxes'])} and scores of "
            f"{len(scores)} images"
        )
    for image_id, boxes, logits in zip(ids, content["boxes"], scores):
        boxes = np.asarray(boxes, np.float64)
        if boxes.size and mode == BoxMode.XYWH_ABS:
            boxes = BoxMode.convert(boxes, mode, BoxMode.XYXY_ABS)
        # An id may be a numpy scalar, which equals its number but prints otherwise.
        yield getattr(image_id, "item", lambda: image_id)(), boxes, logits


def _from_json(path):
    with open(path) as f:
        results = json.load(f)
    by_image = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append([*result["bbox"], result["score"]])
    scores = np.array([result["score"] for result in results], np.float64)
    are_probabilities = bool(((scores >= 0) & (scores <= 1)).all())
    for image_id, rows in by_image.items():
        try:
            rows = np.array(rows, np.float64).reshape(len(rows), 5)
        except ValueError:
            raise ValueError(
                f"{path}: image {image_id!r} has a bbox that is not 4 numbers"
            ) from None
        boxes = BoxMode.convert(rows[:, :4], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
        yield image_id, boxes, _logit(rows[:, 4]) if are_probabilities else rows[:, 4]


def _logit(probabilities):
    """Finite also for 0 and 1."""
    p = np.clip(probabilities, 1e-15, 1 - 1e-15)
    return np.log(p) - np.log1p(-p)


def rank_logits(count):
    """(count,) scores that say nothing but the order: -1, -2, ..."""
    return -np.arange(1, count + 1, dtype=np.float32)


def are_ranks(proposals):
    """Whether all scores are whole numbers below 0, as of :func:`rank_logits`."""
    return all(
        (found.logits < 0).all() and (found.logits == np.rint(found.logits)).all()
        for found in proposals.values()
    )


def assign_proposals(proposals, dataset_name, origin):
    """
    Args:
        proposals (dict): of :func:`load_proposals`.
        dataset_name (str): a name in DatasetCatalog.
        origin (str): the file, for messages.

    Returns:
        dict: the same, by the dataset's image ids: as for Detectron2, 7 and "7" are the same image.

    Raises:
        ValueError: for images that are not in the dataset or are there as 7 and as "7", and for
            proposals whose centre is outside of their image.
    """
    records = {str(record["image_id"]): record for record in DatasetCatalog.get(dataset_name)}
    unknown = [image_id for image_id in proposals if str(image_id) not in records]
    if unknown:
        raise ValueError(
            f"{origin}: {len(unknown)} of its {len(proposals)} images (the first: "
            f"{unknown[0]!r}) are not in dataset '{dataset_name}' ({len(records)} images, the "
            f"first: {next(iter(records), None)!r}); it is a file of another dataset"
        )
    assigned = {}
    for image_id, found in proposals.items():
        record = records[str(image_id)]
        size = np.array([record.get("width", np.inf), record.get("height", np.inf)])
        centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        outside = ((centre < 0) | (centre > size)).any(axis=1)
        if outside.any():
            k = int(np.argmax(outside))
            raise ValueError(
                f"{origin}: image {image_id!r} is {size[0]} x {size[1]} pixels in dataset "
                f"'{dataset_name}', proposal {k} is {found.boxes[k].tolist()}; it is a file of "
                "another dataset, or of resized images"
            )
        if record["image_id"] in assigned:
            raise ValueError(
                f"{origin}: image {image_id!r} is there twice, as text and as a number"
            )
        assigned[record["image_id"]] = found
    return assigned


def evaluate_proposals(path, dataset_name, output_dir, *, budgets, iou_thresholds):
    """
    Recall and errors of the proposals in a file: logged, returned, and written to ``output_dir``
    as by :class:`WritingEvaluators`. Images that the file lacks have no proposals.

    Of proposals that are only ranked (see :func:`are_ranks`), what depends on scores is nan.

    Args:
        path (str): a file for :func:`load_proposals`, whose errors it raises, as well as those of
            :func:`assign_proposals`.
        dataset_name (str): a name in DatasetCatalog.
        output_dir (str): folder, made if it is not there.
        budgets, iou_thresholds: see :class:`ProposalRecallEvaluator`.

    Returns:
        OrderedDict: task -> {metric: value}.
    """
    proposals = assign_proposals(load_proposals(path), dataset_name, path)
    ground_truth = load_ground_truth(dataset_name)
    evaluators = WritingEvaluators(
        [
            ProposalRecallEvaluator(
                dataset_name,
                budgets=budgets,
                iou_thresholds=iou_thresholds,
                ground_truth=ground_truth,
            ),
            ProposalErrorEvaluator(
                dataset_name,
                budgets=budgets,
                scored=not are_ranks(proposals),
                ground_truth=ground_truth,
            ),
        ],
        dataset_name,
        output_dir,
    )
    evaluators.reset()
    none = Proposals(np.empty((0, 4), np.float32), np.empty(0, np.float32))
    for image_id in ground_truth.image_index:
        boxes, logits = proposals.get(image_id, none)
        instances = Instances((0, 0))  # the evaluators do not ask for the size
        instances.proposal_boxes = Boxes(torch.from_numpy(boxes))
        instances.objectness_logits = torch.from_numpy(logits)
        evaluators.process([{"image_id": image_id}], [{"proposals": instances}])
    return evaluators.evaluate()
