"""Datasets in PASCAL VOC layout -> Detectron2's standard dataset dicts.

Unlike Detectron2's reader it keeps ``difficult``, checks every file, and says what is wrong.
"""

import contextlib
import functools
import logging
import multiprocessing
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from tabulate import tabulate
from tqdm import tqdm

from detectron2.structures import BoxMode
from detectron2.utils import comm

from .image_header import ImageHeader, read_image_header
from .voc_layout import IMAGE_SUFFIXES, check_voc_folder, list_images, read_split
from .voc_xml import (
    VOCError,
    annotated_size,
    check_class_names,
    load_annotation,
    object_name,
    parse_object,
)

__all__ = ["VOCError", "read_voc"]

logger = logging.getLogger(__name__)

ON_ERROR = ("error", "skip")
_PARALLEL_FROM = 2000  # images; below, starting processes costs more than it saves
_MAX_PROCESSES = 8
_SHOWN_FAULTS = 10
_Task = Tuple[str, Sequence[str]]  # image id, its files


class _Image(NamedTuple):
    """What one worker returns for one image."""

    record: Optional[Dict[str, Any]]  # None: dropped
    has_xml: bool
    faults: List[VOCError]


def read_voc(
    root: str, split: str, class_names: Sequence[str], on_error: str = "error"
) -> List[Dict[str, Any]]:
    """Reads one split of a folder in VOC layout.

    An id is the file name without its suffix, below JPEGImages. In a split file everything
    behind the first column is ignored ("id  1" in VOC's per-class files), unless an image has the
    whole line as its name. Width and height are those of the image as Detectron2 reads it, which
    is turned by its EXIF orientation. Where the XML has them exchanged, its boxes refer to the
    stored pixels and are turned, too. Images without XML and XML without objects give a record
    without annotations: a background image.

    Args:
        root: the folder with ImageSets/Main, JPEGImages and Annotations.
        split: name of a file in ImageSets/Main, without ".txt".
        class_names: the classes in the order of their category ids.
        on_error: "error" raises at the first fault; "skip" drops the object at fault, or the
            image where that is at fault, and logs how many were dropped for which reason.

    Returns:
        list[dict]: one per image in the order of the split, with ``file_name``, ``image_id``
        (str), ``height``, ``width`` and ``annotations``; each annotation has ``bbox``
        ([x0, y0, x1, y1], 0-based, float), ``bbox_mode`` (XYXY_ABS), ``category_id`` and
        ``difficult`` (0 or 1).

    Raises:
        VOCError: see :class:`VOCError`. With "skip" only for what leaves nothing to read: a
            missing folder or split, a bad class list, a split without a usable image.
    """
    class_ids = {name: index for index, name in enumerate(check_class_names(class_names))}
    check_on_error(on_error)
    check_voc_folder(root)
    files = list_images(os.path.join(root, "JPEGImages"))
    split_file = os.path.join(root, "ImageSets", "Main", split + ".txt")
    ids, faults = read_split(split_file, files)
    if faults and on_error == "error":
        raise faults[0]
    records, without_xml = [], 0
    read_one = functools.partial(_read_image, root, class_ids)
    tasks = [(image_id, files.get(image_id, ())) for image_id in ids]
    with contextlib.closing(_map(read_one, tasks)) as images:
        for image in images:
            if image.faults and on_error == "error":
                raise image.faults[0]
            faults.extend(image.faults)
            if image.record is not None:
                records.append(image.record)
                without_xml += not image.has_xml
    _report(split_file, records, without_xml, faults)
    if not records:
        raise VOCError(f"{split_file}: no usable image is left of {len(ids)} ids; see the log")
    return records


def check_on_error(on_error: str) -> None:
    """Raises VOCError unless the value is one of ON_ERROR."""
    if on_error not in ON_ERROR:
        raise VOCError(f"on_error (DATASETS.VOC_ON_ERROR) is {on_error!r}; use one of {ON_ERROR}")


def _read_image(root: str, class_ids: Dict[str, int], task: _Task) -> _Image:
    image_id, files = task
    xml = os.path.join(root, "Annotations", image_id + ".xml")
    has_xml = os.path.lexists(xml)
    annotations: List[Dict[str, Any]] = []
    faults: List[VOCError] = []
    try:
        path = _image_file(root, image_id, files)
        header = _image_header(path)
        if has_xml:
            annotations, faults = _read_objects(xml, header, class_ids)
    except VOCError as error:
        return _Image(None, has_xml, [error])
    width, height = header.oriented_size
    record = {
        "file_name": path,
        "image_id": image_id,
        "height": height,
        "width": width,
        "annotations": annotations,
    }
    return _Image(record, has_xml, faults)


def _image_file(root: str, image_id: str, files: Sequence[str]) -> str:
    if not files:
        path = os.path.join(root, "JPEGImages", image_id)
        message = f"{path}{{{','.join(IMAGE_SUFFIXES)}}}: the image is missing"
        raise VOCError(f"{message}; add it, or delete its id from the split", "missing image")
    if len(files) > 1:
        path = os.path.join(root, "JPEGImages", files[0])
        message = f"{path}: {len(files)} images have this id ({', '.join(sorted(files))})"
        raise VOCError(f"{message}; keep one of them", "ambiguous image")
    return os.path.join(root, "JPEGImages", files[0])


def _image_header(path: str) -> ImageHeader:
    try:
        return read_image_header(path)
    except ValueError as error:
        message = f"{path}: the image cannot be used ({error}); replace it, or delete its id"
        raise VOCError(f"{message} from the split", "unreadable image") from None


def _read_objects(
    xml: str, header: ImageHeader, class_ids: Dict[str, int]
) -> Tuple[List[Dict[str, Any]], List[VOCError]]:
    root = load_annotation(xml)
    size = annotated_size(root, xml) or header.oriented_size
    if size not in (header.oriented_size, header.size):
        message = "{}: <size> is {:g} x {:g} but the image is {} x {} pixels; correct one of them"
        raise VOCError(message.format(xml, *size, *header.oriented_size), "wrong size")
    annotations, faults = [], []
    for index, element in enumerate(root.iterfind("object")):
        try:
            category_id, box, difficult = parse_object(element, size, class_ids)
        except VOCError as error:
            message = f"{xml}: object {index} ({object_name(element)}): {error}"
            faults.append(VOCError(message, error.kind))
            continue
        if size != header.oriented_size:
            box = header.rotate_box(box)
        annotations.append(
            {
                "bbox": list(box),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": category_id,
                "difficult": difficult,
            }
        )
    return annotations, faults


def _map(function: Callable[[_Task], _Image], tasks: List[_Task]) -> Iterator[_Image]:
    """Maps in order, with several processes and a progress bar where there is much to do."""
    if len(tasks) < _PARALLEL_FROM:
        yield from map(function, tasks)
        return
    progress = functools.partial(
        tqdm, total=len(tasks), desc="Reading annotations", disable=not comm.is_main_process()
    )
    processes = _free_processes()
    if processes == 1:
        yield from progress(map(function, tasks))
        return
    # Forked processes start at once and share the lists; they only run XML and header parsers.
    context = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(processes, mp_context=context)
    try:
        yield from progress(executor.map(function, tasks, chunksize=128))
    finally:
        executor.shutdown(cancel_futures=True)


def _free_processes() -> int:
    """How many processes this rank may use; 1 where forking is not safe or not allowed."""
    if not sys.platform.startswith("linux") or multiprocessing.current_process().daemon:
        return 1
    share = len(os.sched_getaffinity(0)) // comm.get_world_size()
    return min(max(share, 1), _MAX_PROCESSES)


def _report(
    split_file: str, records: List[Dict[str, Any]], without_xml: int, faults: List[VOCError]
) -> None:
    annotations = [annotation for record in records for annotation in record["annotations"]]
    difficult = sum(annotation["difficult"] for annotation in annotations)
    empty = sum(not record["annotations"] for record in records)
    logger.info(
        f"{split_file}: {len(records)} images, {len(annotations)} objects ({difficult} difficult), "
        f"{empty} images without objects ({without_xml} without an XML file)"
    )
    if records and without_xml == len(records):
        logger.warning(f"{split_file}: no image has a file in Annotations; all are background")
    if not faults:
        return
    for fault in faults[:_SHOWN_FAULTS]:
        logger.warning(f"Dropped: {fault}")
    if len(faults) > _SHOWN_FAULTS:
        logger.warning(f"... and {len(faults) - _SHOWN_FAULTS} more")
    counts = Counter(fault.kind for fault in faults).most_common()
    table = tabulate(counts, headers=("dropped because of", "count"), tablefmt="pipe")
    logger.warning(f"{split_file}: dropped {len(faults)} objects or images:\n{table}")
