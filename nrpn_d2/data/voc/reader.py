"""Datasets in PASCAL VOC layout -> Detectron2's standard dataset dicts.

Unlike Detectron2's reader it keeps ``difficult``, checks every file, and says what is wrong.
"""

import contextlib
import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.structures import BoxMode
from tabulate import tabulate

from ...utils.parallel import parallel_map
from .cache import VOCCache, cache_folder, signature
from .image import ImageFiles, VOCImage, read_image, xml_path
from .layout import check_voc_folder, list_images, read_split
from .xml import VOCError, VOCObject, check_class_names

__all__ = ["VOCError", "read_voc"]

logger = logging.getLogger(__name__)

ON_ERROR = ("error", "skip")
_LARGE = 2000  # images; below, processes and a cache cost more than they save
_SHOWN_FAULTS = 10


def read_voc(
    root: str, split: str, class_names: Sequence[str], on_error: str = "error"
) -> list[dict[str, Any]]:
    """Reads one split of a folder in VOC layout.

    An id is the file name without its suffix, below JPEGImages. In a split file everything
    behind the first column is ignored ("id  1" in VOC's per-class files), unless an image has the
    whole line as its name. Width and height are those of the image as Detectron2 reads it, which
    is turned by its EXIF orientation. Where the XML has them exchanged, its boxes refer to the
    stored pixels and are turned, too. Images without XML and XML without objects give a record
    without annotations: a background image.

    What was read of 2,000 images or more is kept for the next run (voc_cache.py says where); an
    image is read again when one of its files has changed, or when it had a fault.

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
    read_one = functools.partial(read_image, root, class_ids)
    tasks = [(image_id, files.get(image_id, ())) for image_id in ids]
    folder = cache_folder() if len(tasks) >= _LARGE else None
    cache = VOCCache(folder, root, split, class_names) if folder else None
    with contextlib.closing(_read_images(read_one, tasks, root, cache)) as images:
        for task, image in zip(tasks, images):
            if image.faults and on_error == "error":
                raise image.faults[0]
            faults.extend(image.faults)
            if image.size is not None:
                records.append(_record(root, task, image))
                without_xml += not image.has_xml
    _report(split_file, records, without_xml, faults)
    if not records:
        raise VOCError(f"{split_file}: no usable image is left of {len(ids)} ids; see the log")
    return records


def check_on_error(on_error: str) -> None:
    """Raises VOCError unless the value is one of ON_ERROR."""
    if on_error not in ON_ERROR:
        raise VOCError(f"on_error (DATASETS.VOC_ON_ERROR) is {on_error!r}; use one of {ON_ERROR}")


def _read_images(
    read_one: Callable[[ImageFiles], VOCImage],
    tasks: list[ImageFiles],
    root: str,
    cache: VOCCache | None,
) -> Iterator[VOCImage]:
    """In the order of the tasks; from the cache where it has an image with unchanged files."""
    if cache is None:
        yield from _map(read_one, tasks)
        return
    signatures = [_signature(root, task) for task in tasks]
    fresh = _map(read_one, [task for task, s in zip(tasks, signatures) if s not in cache])
    known = sum(s in cache for s in signatures)
    logger.info(f"{known} of {len(tasks)} images are as they were when {cache.path} was written")
    try:
        for s in signatures:
            if s in cache:
                size, objects, has_xml = cache[s]
                yield VOCImage(size, [VOCObject(*values) for values in objects], has_xml, [])
                continue
            image = next(fresh)
            if s is not None and not image.faults:
                cache[s] = [image.size, image.objects, image.has_xml]
            yield image
    finally:  # after the first fault, too: the rest need not be read again
        fresh.close()
        cache.save(signatures)


def _signature(root: str, task: ImageFiles) -> str | None:
    image_id, files = task
    if len(files) != 1:
        return None
    image = os.path.join(root, "JPEGImages", files[0])
    return signature(files[0], [image, xml_path(root, image_id)])


def _record(root: str, task: ImageFiles, image: VOCImage) -> dict[str, Any]:
    image_id, files = task
    width, height = image.size
    return {
        "file_name": os.path.join(root, "JPEGImages", files[0]),
        "image_id": image_id,
        "height": height,
        "width": width,
        "annotations": [
            {
                "bbox": list(box),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": category_id,
                "difficult": difficult,
            }
            for category_id, box, difficult in image.objects
        ],
    }


def _map(function: Callable[[ImageFiles], VOCImage], tasks: list[ImageFiles]) -> Iterator[VOCImage]:
    if len(tasks) < _LARGE:
        return (function(task) for task in tasks)
    return parallel_map(function, tasks, "Reading annotations")


def _report(
    split_file: str, records: list[dict[str, Any]], without_xml: int, faults: list[VOCError]
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
