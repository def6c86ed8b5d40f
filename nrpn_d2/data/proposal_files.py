"""Proposals of any method as files: written, read and checked, and given to a dataset's records.

Two formats, told apart by the ending:

.pkl   Detectron2's, for MODEL.LOAD_PROPOSALS and DATASETS.PROPOSAL_FILES_*: a dict with "ids",
       "boxes" (a (K, 4) array per image), "objectness_logits" ((K,) each) and "bbox_mode".
.json  COCO's result format, a list of {"image_id", "category_id", "bbox", "score"}; bbox is x, y,
       width, height. Scores that all lie in [0, 1] are probabilities, others are logits.

Proposals may only be ranked, best first, without scores. Both formats need numbers, so these are 0,
-1, -2, ..., and the file says so: "ranked": True, in a .json with each result.
"""

import json
import pickle
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from scipy.special import expit

from ..utils.boxes import check_boxes
from ..utils.safe_load import load_file
from ..utils.saving import atomic_open
from ..utils.text_files import load_json


class Proposals(NamedTuple):
    """K proposals of one image, best first."""

    boxes: np.ndarray  # (K, 4) float32: x0, y0, x1, y1 in pixels
    logits: np.ndarray | None  # (K,) float32; None for proposals that are only ranked


def save_proposals(path: str, proposals: Mapping[Hashable, Proposals]) -> None:
    """Write a .pkl or .json.

    Args:
        proposals: by image id; of all images with logits, or of none. In a .json, images without
            proposals leave no trace; a .pkl for Detectron2's loader needs every image of the
            dataset.

    Raises:
        ValueError: another ending, or boxes or logits that no file may hold, such as NaN.
    """
    check_ending(path)
    ranked = any(of_image.logits is None for of_image in proposals.values())
    boxes = [of_image.boxes for of_image in proposals.values()]
    logits = [_ranks(len(x.boxes)) if ranked else x.logits for x in proposals.values()]
    for image_id, *of_image in zip(proposals, boxes, logits):
        check_boxes(*of_image, f"{path} is not written: image {image_id!r}")
    if path.endswith(".pkl"):
        content = {"ids": list(proposals), "boxes": boxes, "objectness_logits": logits}
        content.update({"bbox_mode": BoxMode.XYXY_ABS.value, "ranked": ranked})
        with atomic_open(path, "wb") as f:
            pickle.dump(content, f)
        return
    results = []
    for image_id, xyxy, scores in zip(proposals, boxes, logits):
        if not ranked:
            scores = expit(scores.astype(np.float64))
        xywh = BoxMode.convert(xyxy.astype(np.float64), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        results += [
            {"image_id": image_id, "category_id": 1, "bbox": box, "score": score}
            | ({"ranked": True} if ranked else {})
            for box, score in zip(xywh.tolist(), scores.tolist())
        ]
    with atomic_open(path, "w") as f:
        json.dump(results, f)


def load_proposals(path: str) -> dict[Hashable, Proposals]:
    """Read the proposals of each image.

    Raises:
        ValueError: naming ``path``, for another ending or content, boxes that are not finite or of
            negative width or height, an image that occurs twice, or no boxes at all.
        CheckpointError: for a pickle with anything but arrays and plain containers, which is not
            run.
    """
    check_ending(path)
    try:
        ranked, per_image = _from_pickle(path) if path.endswith(".pkl") else _from_json(path)
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"{path} is not a proposal file: {type(e).__name__}: {e}") from e
    except ValueError as e:
        raise ValueError(str(e) if str(e).startswith(path) else f"{path}: {e}") from e
    proposals = {}
    for image_id, boxes, logits in per_image:
        if image_id in proposals:
            raise ValueError(f"{path}: image {image_id!r} occurs twice")
        boxes, logits = np.asarray(boxes, np.float32), np.asarray(logits, np.float32)
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        check_boxes(boxes, logits, f"{path}: image {image_id!r}")
        order = np.argsort(-logits, kind="stable")
        proposals[image_id] = Proposals(boxes[order], None if ranked else logits[order])
    if not any(len(of_image.boxes) for of_image in proposals.values()):
        raise ValueError(f"{path} has no boxes at all")
    return proposals


def check_ending(path: str) -> None:
    """Raise a ValueError unless the file name ends as a proposal file's."""
    if not path.endswith((".pkl", ".json")):
        raise ValueError(f"{path}: a proposal file ends in .pkl (Detectron2) or .json (COCO)")


_PerImage = Iterable[tuple[Hashable, Any, Any]]  # image id, boxes (K, 4), logits (K,)


def _from_pickle(path: str) -> tuple[bool, _PerImage]:
    content = load_file(path)
    # Detectron's first version has other names
    ids = content["ids"] if "ids" in content else content["indexes"]
    scores = content["objectness_logits" if "objectness_logits" in content else "scores"]
    mode = BoxMode(content.get("bbox_mode", BoxMode.XYXY_ABS))
    if mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        raise ValueError(f"{path}: bbox_mode {mode.name} is not supported")
    if not len(ids) == len(content["boxes"]) == len(scores):
        counts = f"{len(ids)}, {len(content['boxes'])} and {len(scores)}"
        raise ValueError(f"{path}: ids, boxes and scores are of {counts} images")
    # An id may be a numpy scalar, which equals its number but prints otherwise
    ids = [id_.item() if isinstance(id_, np.generic) else id_ for id_ in ids]
    boxes = [np.asarray(of_image, np.float64) for of_image in content["boxes"]]
    if mode == BoxMode.XYWH_ABS:
        boxes = [BoxMode.convert(b, mode, BoxMode.XYXY_ABS) if b.size else b for b in boxes]
    return bool(content.get("ranked", False)), zip(ids, boxes, scores)


def _from_json(path: str) -> tuple[bool, _PerImage]:
    results = load_json(path)
    if not isinstance(results, list):
        what = "COCO's ground truth" if "annotations" in results else "another kind of JSON"
        raise ValueError(
            f"{path} is not a proposal file: it looks like {what}. Proposals are a list of "
            '{"image_id": ..., "category_id": 1, "bbox": [x, y, width, height], "score": ...}'
        )
    by_image: dict[Hashable, list] = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append([*result["bbox"], result["score"]])
    ranked = any(result.get("ranked") for result in results)
    scores = np.array([result["score"] for result in results], np.float64)
    are_logits = ranked or bool(((scores < 0) | (scores > 1)).any())
    per_image = []
    for image_id, rows in by_image.items():
        try:
            rows = np.array(rows, np.float64).reshape(len(rows), 5)
        except ValueError:
            raise ValueError(f"{path}: a bbox of image {image_id!r} is not 4 numbers") from None
        boxes = BoxMode.convert(rows[:, :4], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
        per_image.append((image_id, boxes, rows[:, 4] if are_logits else _logit(rows[:, 4])))
    return ranked, per_image


def _logit(probabilities: np.ndarray) -> np.ndarray:
    """Return logits that are finite also for 0 and 1."""
    p = np.clip(probabilities, 1e-15, 1 - 1e-15)
    return np.log(p) - np.log1p(-p)


def assign_proposals(
    proposals: Mapping[Hashable, Proposals], dataset_name: str, origin: str
) -> dict[Hashable, Proposals]:
    """Give proposals the dataset's image ids: as for Detectron2, 7 and "7" are the same image.

    Raises:
        ValueError: starts with ``origin``; for images that are not in the dataset or are there as 7
            and as "7", and for proposals whose centre is outside of their image.
    """
    records = {str(record["image_id"]): record for record in DatasetCatalog.get(dataset_name)}
    unknown = [image_id for image_id in proposals if str(image_id) not in records]
    if unknown:
        some = f"{len(unknown)} of its {len(proposals)} images (the first: {unknown[0]!r})"
        others = f"{len(records)} images, the first: {next(iter(records), None)!r}"
        message = f"{origin}: {some} are not in dataset '{dataset_name}' ({others})"
        raise ValueError(f"{message}; it is a file of another dataset")
    assigned = {}
    for image_id, of_image in proposals.items():
        record = records[str(image_id)]
        size = np.array([record.get("width", np.inf), record.get("height", np.inf)])
        centre = (of_image.boxes[:, :2] + of_image.boxes[:, 2:]) / 2
        outside = ((centre < 0) | (centre > size)).any(axis=1)
        if outside.any():
            k = int(np.argmax(outside))
            message = f"{origin}: image {image_id!r} is {size[0]} x {size[1]} pixels in dataset "
            message += f"'{dataset_name}', proposal {k} is {of_image.boxes[k].tolist()}"
            raise ValueError(f"{message}; it is a file of another dataset, or of resized images")
        if record["image_id"] in assigned:
            raise ValueError(f"{origin}: image {image_id!r} occurs as text and as a number")
        assigned[record["image_id"]] = of_image
    return assigned


def add_proposals(records: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    """Add to dataset dicts their proposals, as Detectron2 does for MODEL.LOAD_PROPOSALS.

    Detectron2's own ``load_proposals_into_dataset`` would run a pickle's code.

    Args:
        records: changed in place; as for Detectron2, the file may have more images.
        path: a file for :func:`load_proposals`, whose errors are raised, too.

    Raises:
        ValueError: an image has no proposals in the file.
    """
    proposals = load_proposals(PathManager.get_local_path(path))
    by_id = {str(image_id): of_image for image_id, of_image in proposals.items()}
    missing = [record["image_id"] for record in records if str(record["image_id"]) not in by_id]
    if missing:
        message = f"{path}: it has no entry for {len(missing)} of {len(records)} images (the first:"
        raise ValueError(f"{message} {missing[0]!r}); is it a file of another dataset?")
    for record in records:
        boxes, logits = by_id[str(record["image_id"])]
        record["proposal_boxes"] = boxes
        record["proposal_objectness_logits"] = _ranks(len(boxes)) if logits is None else logits
        record["proposal_bbox_mode"] = BoxMode.XYXY_ABS
    return records


def _ranks(count: int) -> np.ndarray:
    return -np.arange(count, dtype=np.float32)
