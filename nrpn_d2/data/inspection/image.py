"""One image of a dataset: whether it can be decoded, its boxes, and its perceptual hash."""

from typing import Any, NamedTuple

import imagehash
import numpy as np
from PIL import Image

from ...utils.boxes import box_iou
from ..faults import DatasetError, clip_box
from ..image_header import FORMATS, read_image_header
from ..reading import absolute_box

DUPLICATE_IOU = 0.95  # of two boxes of one class
_DECODED = 128  # pixels of the shorter side, at least, to which a JPEG is decoded for its hash
_ROWS = 256  # of the matrix of IoUs, at a time


class Finding(NamedTuple):
    """Something wrong with a dataset."""

    kind: str  # in two or three words
    dataset: str
    image: str  # the file; "" for a fault of no image
    message: str  # with the file and the remedy
    boxes: tuple[tuple[float, ...], ...] = ()  # at fault: x0, y0, x1, y1 in pixels of the image
    other: str = ""  # the file of the image that it is like


class Task(NamedTuple):
    """An image to inspect."""

    dataset: str
    record: dict[str, Any]
    num_classes: int  # 0: unknown


class InspectedImage(NamedTuple):
    size: tuple[int, int] | None  # (width, height) as Detectron2 sees it; None: it is unreadable
    bits: np.ndarray | None  # (64,) bool: the perceptual hash
    findings: list[Finding]


def inspect_image(task: Task) -> InspectedImage:
    """Inspect one image; may run in other processes."""
    path, findings = task.record["file_name"], []
    size = bits = None
    try:
        size = read_image_header(path).oriented_size
        with Image.open(path, formats=FORMATS) as image:
            image.draft("L", (_DECODED, _DECODED))
            bits = perceptual_hash(image)
    except Exception as error:  # Pillow's parsers raise nearly anything on a broken file
        message = f"{path}: it cannot be decoded ({error}); replace it"
        findings.append(Finding("unreadable image", task.dataset, path, message))
    said = task.record.get("width"), task.record.get("height")
    if size and None not in said and said != size:
        message = "{}: it has {} x {} pixels, and its record says {} x {}; correct one of them"
        message = message.format(path, *size, *said)
        findings.append(Finding("wrong size", task.dataset, path, message))
    findings += _box_findings(task, size or said)
    return InspectedImage(size, bits, findings)


def perceptual_hash(image: Image.Image) -> np.ndarray:
    """Return (64,) bool, of which images that look alike share most."""
    return imagehash.phash(image.convert("L")).hash.ravel()


def _box_findings(task: Task, size: tuple[Any, Any]) -> list[Finding]:
    annotations = task.record.get("annotations", ())
    boxes = np.array([absolute_box(obj) for obj in annotations], np.float64).reshape(-1, 4)
    classes = np.array([obj["category_id"] for obj in annotations], np.int64)
    path, findings = task.record["file_name"], []

    def add(kind: str, message: str, *at_fault: int) -> None:
        shown = tuple(tuple(boxes[i].tolist()) for i in at_fault if np.isfinite(boxes[i]).all())
        findings.append(Finding(kind, task.dataset, path, f"{path}: {message}", shown))

    size = [np.inf if side is None else side for side in size]
    for i, box in enumerate(boxes.tolist()):
        text = "object {}, box ({:g}, {:g}, {:g}, {:g})".format(i, *box)
        if task.num_classes and not 0 <= classes[i] < task.num_classes:
            known = f"is not in 0 to {task.num_classes - 1}; correct it"
            add("unknown class", f"{text}: its class {classes[i]} {known}", i)
        try:
            clip_box(box, size, text, "remove or redraw it")
        except DatasetError as error:
            add(error.kind, str(error), i)
    for i, j in _duplicates(boxes, classes):
        message = f"objects {i} and {j} are of one class and have nearly the same box; remove one"
        add("duplicate box", message, i, j)
    return findings


def _duplicates(boxes: np.ndarray, classes: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs i < j of one class whose IoU is at least DUPLICATE_IOU."""
    pairs = []
    for start in range(0, len(boxes), _ROWS):
        rows = slice(start, start + _ROWS)
        alike = box_iou(boxes[rows, None], boxes) >= DUPLICATE_IOU
        alike &= classes[rows, None] == classes
        i, j = np.nonzero(np.triu(alike, start + 1))
        pairs += zip((i + start).tolist(), j.tolist())
    return pairs
