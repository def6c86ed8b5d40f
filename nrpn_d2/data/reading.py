"""From images with their labels to dataset dicts: what the readers of all formats share.

A reader turns the images of a dataset into :class:`ReadImage`, one by one and in any process;
:func:`read_records` collects them, and raises, or counts and reports, their faults.
"""

import contextlib
import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from detectron2.structures import BoxMode
from tabulate import tabulate

from ..utils.parallel import parallel_map
from ..utils.text_files import read_bytes
from .faults import Box, DatasetError
from .image_header import ImageHeader, read_image_header

logger = logging.getLogger(__name__)

ON_ERROR = ("error", "skip")
_LARGE = 2000  # images; below, starting processes costs more than it saves
_SHOWN_FAULTS = 10
_MAX_NAMES = 16  # of one folder, by links
Records = list[dict[str, Any]]  # Detectron2's dataset dicts
_Task = TypeVar("_Task")
_collected: list[tuple[DatasetError, str]] | None = None  # see collected_faults


class Dataset(NamedTuple):
    """What is registered under a name."""

    load: Callable[[], Records]
    metadata: dict[str, Any]  # "thing_classes", and "year" for VOC's AP


class ReadImage(NamedTuple):
    """What was read of one image."""

    record: dict[str, Any] | None  # one of Detectron2's dataset dicts; None: the image is dropped
    has_labels: bool = True  # False: no label file belongs to it
    faults: Sequence[DatasetError] = ()


def read_records(
    read_one: Callable[[_Task], ReadImage],
    tasks: list[_Task],
    source: str,
    on_error: str,
    faults: Sequence[DatasetError] = (),
) -> Records:
    """Read every image, and log what the dataset consists of and what was dropped.

    Args:
        read_one: reads one image, or raises DatasetError for one to be dropped; may run in other
            processes.
        tasks: one per image, in the dataset's order.
        source: the file that names the images, for messages.
        on_error: "error" raises at the first fault; "skip" drops, counts and reports.
        faults: those of the file that names the images.

    Raises:
        DatasetError: the first fault; with "skip" only when no image is left.
    """
    if on_error not in ON_ERROR:
        message = f"on_error (DATASETS.ON_ERROR, VOC_ON_ERROR) is {on_error!r}"
        raise DatasetError(f"{message}; use one of {ON_ERROR}")
    if faults and on_error == "error":
        raise faults[0]
    dropped, records, unlabelled = [(fault, "") for fault in faults], [], 0
    with contextlib.closing(_map(read_one, tasks)) as images:
        for image in images:
            if image.faults and on_error == "error":
                raise image.faults[0]
            path = image.record["file_name"] if image.record else ""
            dropped += [(fault, path) for fault in image.faults]
            if image.record is not None:
                records.append(image.record)
                unlabelled += not image.has_labels
    if _collected is not None:
        _collected.extend(dropped)
    _report(source, records, unlabelled, [fault for fault, _ in dropped])
    if not records:
        raise DatasetError(f"{source}: no usable image is left of {len(tasks)}; see the log")
    return records


@contextlib.contextmanager
def collected_faults() -> Iterator[list[tuple[DatasetError, str]]]:
    """Collect the faults in what is read meanwhile with "skip".

    Yields:
        A list that gets each fault and the file of its image; "" for one without a record.
    """
    global _collected
    _collected = faults = []
    try:
        yield faults
    finally:
        _collected = None


def make_record(
    path: str, image_id: str | int, size: tuple[int, int], annotations: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return one of Detectron2's dataset dicts; ``size`` is (width, height)."""
    return {
        "file_name": path,
        "image_id": image_id,
        "height": size[1],
        "width": size[0],
        "annotations": annotations,
    }


def make_annotation(box: Box, category_id: int, difficult: int) -> dict[str, Any]:
    """Return one annotation of a dataset dict; a ``difficult`` object is ignored, not learned."""
    return {
        "bbox": list(box),
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category_id,
        "difficult": difficult,
    }


def is_ignored(annotation: dict[str, Any]) -> bool:
    """Tell whether an object is neither to be learned nor background: difficult, or a crowd."""
    return bool(annotation.get("difficult") or annotation.get("iscrowd"))


def read_header(path: str, listed_in: str) -> ImageHeader:
    """Return what Detectron2 sees of an image that ``listed_in`` names, or raise DatasetError."""
    if not os.path.lexists(path):
        message = f"{path}: the image is missing; add it, delete it from the {listed_in}, or "
        raise DatasetError(f"{message}correct the third of DATASETS.OWN, a folder", "missing image")
    try:
        return read_image_header(path)
    except ValueError as error:
        message = f"{path}: the image cannot be used ({error}); replace it, or delete it from the "
        raise DatasetError(message + listed_in, "unreadable image") from None


def read_lines(
    path: str, remedy: str, kind: str = "dataset", max_bytes: int = 64 * 2**20
) -> list[str]:
    """Return the lines of a text file without the spaces around them.

    Raises:
        DatasetError: of this kind; the file is missing, too large or not UTF-8.
    """
    try:
        text = read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 ({error}); save it as UTF-8", kind) from None
    except ValueError as error:
        raise DatasetError(f"{error}; {remedy}", kind) from None
    return [line.strip() for line in text.splitlines()]


def image_files(folder: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Yield the images in and below a folder, as paths relative to it, with "/"."""
    for parent, names in walk(folder):
        prefix = os.path.relpath(parent, folder).replace(os.sep, "/") + "/"
        for name in names:
            if name.lower().endswith(suffixes):
                yield (prefix + name).removeprefix("./")


def walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and each one below it, with the names of its files.

    Links are followed; one to a folder above itself, which would have no end, is left out.

    Raises:
        DatasetError: a folder has more than ``_MAX_NAMES`` names.
    """
    visits: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        visits[real] += 1
        if visits[real] > _MAX_NAMES:  # links to links could lead to billions of files
            message = f"{folder}: links lead to {real} by more than {_MAX_NAMES} names"
            raise DatasetError(f"{message}; remove some of them")
        yield parent, names
        folders[:] = [name for name in folders if not _leads_up(os.path.join(parent, name))]


def _leads_up(path: str) -> bool:
    above = Path(os.path.abspath(path)).parents
    return os.path.islink(path) and any(os.path.samefile(path, folder) for folder in above)


def absolute_box(annotation: dict[str, Any]) -> list[float]:
    """Return an annotation's x0, y0, x1, y1."""
    box = [float(x) for x in annotation["bbox"]]
    return BoxMode.convert(box, annotation["bbox_mode"], BoxMode.XYXY_ABS)


def is_coordinate(value: Any) -> bool:
    """Tell whether a value of a file is a number that can be a coordinate; True is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and -1e9 < value < 1e9


def stays_inside(path: str) -> bool:
    """Tell whether a relative path with "/" is the name of something below its folder.

    It is compared as text: links that the dataset's owner made may lead where they want.
    """
    parts, names_drive = path.split("/"), os.name == "nt" and ":" in path
    return path.isprintable() and not (
        "\\" in path or names_drive or any(part in ("", ".", "..") for part in parts)
    )


def read_safely(read_one: Callable[[_Task], ReadImage], task: _Task) -> ReadImage:
    """Read one image; a DatasetError becomes the fault of a dropped one."""
    try:
        return read_one(task)
    except DatasetError as error:
        return ReadImage(None, faults=[error])


def _map(read_one: Callable[[_Task], ReadImage], tasks: list[_Task]) -> Iterator[ReadImage]:
    function = functools.partial(read_safely, read_one)
    if len(tasks) < _LARGE:
        return (function(task) for task in tasks)
    return parallel_map(function, tasks, "Reading annotations")


def _report(source: str, records: Records, unlabelled: int, faults: list[DatasetError]) -> None:
    annotations = [annotation for record in records for annotation in record["annotations"]]
    difficult = sum(annotation["difficult"] for annotation in annotations)
    empty = sum(not record["annotations"] for record in records)
    message = f"{len(records)} images, {len(annotations)} objects ({difficult} difficult), {empty} "
    message += f"images without objects ({unlabelled} without a label file)"
    logger.info("%s: %s", source, message)
    if records and unlabelled == len(records):
        logger.warning("%s: no image has a label file; all are background", source)
    if not faults:
        return
    for fault in faults[:_SHOWN_FAULTS]:
        logger.warning("Dropped: %s", fault)
    if len(faults) > _SHOWN_FAULTS:
        logger.warning("... and %d more", len(faults) - _SHOWN_FAULTS)
    counts = Counter(fault.kind for fault in faults).most_common()
    table = tabulate(counts, headers=("dropped because of", "count"), tablefmt="pipe")
    logger.warning("%s: dropped %d objects or images:\n%s", source, len(faults), table)
