"""Backgrounds to learn from: images in which a trained model is sure of what is no object."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..data.image_header import read_image_header
from ..data.inspection.findings import near_duplicates
from ..data.inspection.image import Task, perceptual_hash
from ..data.reading import absolute_box, is_ignored, stays_inside
from ..utils.boxes import lies_off
from ..utils.page import Box, Html, figure, grid, legend, paragraph, picture, table
from ..utils.saving import atomic_open
from .predict_files import Frame, Summary, batches, common_folder, run_model
from .predictor import Predictor
from .sources import read_image

_PICTURES = 100  # on the contact sheet; they bound its size, to about 3 MB


class Background(NamedTuple):
    """An image and its K false positives, best first."""

    path: str
    boxes: np.ndarray  # (K, 4) x0, y0, x1, y1 in pixels of the image
    scores: np.ndarray  # (K,)
    classes: list[str]  # their names
    objects: np.ndarray  # (G, 4): what is labelled
    bits: np.ndarray  # (64,) bool: the perceptual hash
    like: str = ""  # an image of larger total that looks nearly the same

    @property
    def total(self) -> float:
        return float(self.scores.sum())


def find_backgrounds(
    predictor: Predictor,
    records: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    *,
    min_score: float,
    max_iou: float,
    max_covered: float,
    proposals: bool = False,
    batch: int = 1,
) -> tuple[list[Background], list[str]]:
    """Find the images with false positives, those of the largest sum of scores first.

    Args:
        records: dataset dicts; only "file_name" is needed, without "annotations" nothing is there.
        class_names: of the model, or one for all proposals.
        min_score: from which on a detection counts.
        max_iou: of a false positive with any labelled object.
        max_covered: the fraction of one that a difficult object or a crowd covers.
        proposals: whether proposals count, not detections.
        batch: how many images of one size the model gets at a time.

    Returns:
        The images, and a line for each that cannot be used.
    """
    summary, ranked = Summary(), []
    for frames in batches(_read(predictor, records, summary.failures), batch):
        for frame, found in zip(frames, run_model(predictor, frames, proposals, summary)):
            objects = frame.inputs["objects"]
            boxes, scores = found.pred_boxes.tensor.numpy(), found.scores.numpy()
            is_off = lies_off(boxes, objects, frame.inputs["ignored"], max_iou, max_covered)
            wrong = np.flatnonzero(is_off & (scores >= min_score))
            if len(wrong):
                names = [class_names[number] for number in found.pred_classes[wrong].tolist()]
                bits = perceptual_hash(Image.fromarray(frame.image))
                image = Background(frame.path, boxes[wrong], scores[wrong], names, objects, bits)
                ranked.append(image)
    ranked.sort(key=lambda image: (-image.total, image.path))
    return _mark_duplicates(ranked), summary.failures


def _read(
    predictor: Predictor, records: Sequence[dict[str, Any]], failures: list[str]
) -> Iterator[Frame]:
    folder = common_folder(record["file_name"] for record in records)
    for record in tqdm(records, unit="image"):
        path, objects = record["file_name"], record.get("annotations", ())
        try:
            image = read_image(path)
            if not objects:
                _check_listable(path, folder)
            inputs = predictor.inputs_of_rgb(image)
            boxes = np.array([absolute_box(obj) for obj in objects], np.float32)
            inputs["objects"] = boxes.reshape(-1, 4)
            inputs["ignored"] = np.array([is_ignored(obj) for obj in objects], bool)
            yield Frame(path, image, inputs, path)
        except ValueError as error:
            failures.append(f"{path}: {error}")


def _check_listable(path: str, folder: str) -> None:
    """Raise a ValueError for an image that a list below ``folder`` cannot have."""
    line = _line(path, folder)
    if not stays_inside(line) or any(part != part.strip() for part in line.split("/")):
        raise ValueError("a list cannot have such a name; rename it")
    try:
        read_image_header(path)
    except ValueError as error:
        message = f"training does not read this format ({error})"
        raise ValueError(f"{message}; convert it to JPEG or PNG") from None


def _line(path: str, folder: str) -> str:
    return os.path.relpath(path, folder).replace(os.sep, "/")


def _mark_duplicates(ranked: Sequence[Background]) -> list[Background]:
    tasks = [Task("", {"file_name": image.path}, 0) for image in ranked]
    hashes = np.array([image.bits for image in ranked]).reshape(-1, 64)
    like = {finding.image: finding.other for finding in near_duplicates(tasks, hashes)}
    return [image._replace(like=like.get(image.path, "")) for image in ranked]


def to_learn_from(ranked: Sequence[Background], count: int | None = None) -> list[Background]:
    """Return the first ``count`` without labelled objects that are no near-duplicates."""
    return [image for image in ranked if not len(image.objects) and not image.like][:count]


def write_list(path: str, images: Sequence[Background], folder: str) -> None:
    """Write what DATASETS.OWN takes as a dataset: paths below ``folder``."""
    with atomic_open(path, "w") as file:
        file.writelines(f"{_line(image.path, folder)}\n" for image in images)


def write_table(path: str, ranked: Sequence[Background], taken: Sequence[Background]) -> None:
    """Write a CSV file with a line for each image."""
    paths = {image.path for image in taken}
    with atomic_open(path, "w") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["image", "false positives", "sum", "best", "objects", "like", "taken"])
        for image in ranked:
            scores = f"{image.total:.4f}", f"{image.scores.max():.4f}"
            is_taken = int(image.path in paths)
            count = len(image.scores)
            rows.writerow([image.path, count, *scores, len(image.objects), image.like, is_taken])


def page_content(ranked: Sequence[Background], taken: Sequence[Background]) -> Iterator[Html]:
    """Yield the contact sheet: counts by class, and the first images with what was found."""
    counts = Counter(name for image in ranked for name in image.classes)
    yield table(("taken for", "false positives"), counts.most_common())
    yield paragraph(
        f"{len(taken)} of {len(ranked)} images are in the list to learn from. Look at what was "
        "found: an object that nobody labelled must not become background."
    )
    yield legend("fault", "object", fault="false positive", object="labelled object")
    kept = [image for image in ranked if not image.like][:_PICTURES]
    yield grid(*map(_figure, range(1, len(kept) + 1), kept))


def _figure(number: int, image: Background) -> Html:
    labels = [f"{name} {score:.2f}" for name, score in zip(image.classes, image.scores)]
    boxes = [Box(box, "fault", label) for box, label in zip(image.boxes.tolist(), labels)]
    boxes += [Box(box) for box in image.objects.tolist()]
    caption = f"{number}. {image.path}: {len(image.scores)} false positives, sum {image.total:.2f}"
    if len(image.objects):
        caption += f"; not in the list, it has {len(image.objects)} labelled objects"
    return figure(picture(read_image(image.path), boxes, image.path), caption)
