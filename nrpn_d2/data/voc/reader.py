"""Datasets in PASCAL VOC layout -> Detectron2's standard dataset dicts.

Unlike Detectron2's reader it keeps ``difficult``, checks every file, and says what is wrong.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from ..faults import DatasetError, check_class_names
from ..reading import Dataset, check_on_error, read_records
from .image import read_image
from .layout import check_voc_folder, list_images, list_splits, read_split


def voc_datasets(name: str, paths: Sequence[str], settings: CfgNode) -> dict[str, Dataset]:
    """Find the datasets ``<name>_<split>`` of a folder in VOC layout.

    Args:
        paths: the folder.
        settings: cfg.DATASETS; the classes are its VOC_CLASSES.

    Raises:
        DatasetError: the folder is not in VOC layout, or there are no classes.
    """
    if len(paths) != 1:
        message = f"DATASETS.OWN: {name!r} has a third value"
        raise DatasetError(f"{message}; a folder in VOC layout needs none")
    if not settings.VOC_CLASSES:
        message = f"DATASETS.VOC_CLASSES is empty; {name!r} is in VOC layout"
        raise DatasetError(f"{message}, which does not say what classes there are; name them")
    (root,), class_names = paths, check_class_names(settings.VOC_CLASSES)
    check_voc_folder(root)
    return {
        f"{name}_{split}": voc_dataset(root, split, class_names, voc_on_error(settings))
        for split in list_splits(root, class_names)
    }


def voc_on_error(settings: CfgNode) -> str:
    """Return what to do about faults: VOC_ON_ERROR is the older key, for VOC layout alone."""
    for on_error in (settings.ON_ERROR, settings.VOC_ON_ERROR):
        check_on_error(on_error)
    return "skip" if "skip" in (settings.ON_ERROR, settings.VOC_ON_ERROR) else "error"


def voc_dataset(root: str, split: str, class_names: Sequence[str], on_error: str) -> Dataset:
    """Return one split of a folder in VOC layout; see :func:`read_voc`."""
    metadata = {"thing_classes": list(class_names), "dirname": root, "split": split, "year": 2012}
    return Dataset(functools.partial(read_voc, root, split, class_names, on_error), metadata)


def read_voc(
    root: str, split: str, class_names: Sequence[str], on_error: str = "error"
) -> list[dict[str, Any]]:
    """Read one split of a folder in VOC layout.

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
        One dict per image in the order of the split, with ``file_name``, ``image_id`` (str),
        ``height``, ``width`` and ``annotations``; each annotation has ``bbox``
        ([x0, y0, x1, y1], 0-based, float), ``bbox_mode`` (XYXY_ABS), ``category_id`` and
        ``difficult`` (0 or 1).

    Raises:
        DatasetError: the first fault. With "skip" only for what leaves nothing to read: a missing
            folder or split, a bad class list, a split without a usable image.
    """
    class_ids = {name: index for index, name in enumerate(check_class_names(class_names))}
    check_on_error(on_error)
    check_voc_folder(root)
    files = list_images(os.path.join(root, "JPEGImages"))
    split_file = os.path.join(root, "ImageSets", "Main", split + ".txt")
    ids, faults = read_split(split_file, files)
    tasks = [(image_id, files.get(image_id, ())) for image_id in ids]
    read_one = functools.partial(read_image, root, class_ids)
    return read_records(read_one, tasks, split_file, on_error, faults)
