"""What only all images together tell: near-duplicates, and boxes too large for their class."""

from collections.abc import Sequence

import numpy as np

from ..reading import absolute_box
from .image import Finding, Task

NEAR = 4  # of the 64 bits of the hashes, in which near-duplicate images differ at most
_LARGE = 0.9  # of the image: a box that is suspicious ...
_USUAL = 0.25  # ... where half of the boxes of its class cover at most this
_ROWS = 128  # images at a time


def near_duplicates(tasks: Sequence[Task], hashes: np.ndarray) -> list[Finding]:
    """Compare each image with the ones before it; its nearest within and across datasets count.

    The hashes are (N, 64) bool.
    """
    # +1 and -1: the product of two hashes is 64 minus twice the number of different bits
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    numbers: dict[str, int] = {}
    datasets = np.array([numbers.setdefault(task.dataset, len(numbers)) for task in tasks])
    findings = []
    for start in range(0, len(signs), _ROWS):
        rows = signs[start : start + _ROWS]
        distance = (signs.shape[1] - rows @ signs[: start + len(rows)].T) / 2
        before = np.tri(*distance.shape, start - 1, dtype=bool)
        same = datasets[start : start + _ROWS, None] == datasets[: distance.shape[1]]
        for own, kind in ((same, "near-duplicate image"), (~same, "near-duplicate across splits")):
            near = before & own & (distance <= NEAR)
            for row in np.nonzero(near.any(axis=1))[0]:
                nearest = int(np.where(near[row], distance[row], np.inf).argmin())
                pair = tasks[start + row], tasks[nearest]
                findings.append(_near(kind, *pair, distance[row, nearest]))
    return findings


def large_boxes(tasks: Sequence[Task], class_names: Sequence[str]) -> list[Finding]:
    """Find boxes that cover nearly the whole image, in classes whose boxes usually do not."""
    boxes: dict[int, list[tuple[float, Task, int, tuple[float, ...]]]] = {}  # by class
    for task in tasks:
        area = task.record.get("width", 0) * task.record.get("height", 0)
        for index, annotation in enumerate(task.record.get("annotations", ()) if area else ()):
            x0, y0, x1, y1 = box = tuple(absolute_box(annotation))
            of_class = boxes.setdefault(annotation["category_id"], [])
            of_class.append(((x1 - x0) * (y1 - y0) / area, task, index, box))
    findings = []
    for category, of_class in boxes.items():
        usual = float(np.median([fraction for fraction, *_ in of_class]))
        known = 0 <= category < len(class_names)
        name = class_names[category] if known else f"class {category}"
        for fraction, task, index, box in of_class if usual <= _USUAL else ():
            if fraction >= _LARGE:
                path = task.record["file_name"]
                message = f"{path}: object {index} ({name}) covers {fraction:.0%} of the image, "
                message += f"half of its class at most {usual:.0%}; is it right?"
                findings.append(Finding("large box", task.dataset, path, message, (box,)))
    return findings


def _near(kind: str, task: Task, other: Task, distance: float) -> Finding:
    path, like = task.record["file_name"], other.record["file_name"]
    where = f" of {other.dataset}" if other.dataset != task.dataset else ""
    message = f"{path}: nearly the same as {like}{where} ({distance:.0f} of 64 bits differ)"
    return Finding(kind, task.dataset, path, f"{message}; keep one of them", other=like)
