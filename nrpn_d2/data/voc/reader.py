"""Datasets in PASCAL VOC layout -> Detectron2's standard dataset dicts.

Unlike Detectron2's reader it keeps ``difficult``, checks every file, and says what is wrong.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from ..faults import DatasetError, check_class_names, show
from ..image_header import ImageHeader
from ..reading import Dataset, ReadImage, make_annotation, make_record, read_header, read_records
from .layout import IMAGE_SUFFIXES, check_voc_folder, list_images, list_splits, read_split
from .xml import annotated_size, load_annotation, object_name, parse_object


def voc_datasets(name: str, paths: Sequence[str], settings: CfgNode) -> dict[str, Dataset]:
    """Find the datasets ``<name>_<split>`` of a folder in VOC layout."""
    if len(paths) != 1:
        raise DatasetError(f"DATASETS.OWN: {name!r} has a third value; VOC layout needs none")
    if not settings.VOC_CLASSES:
        message = f"DATASETS.VOC_CLASSES is empty; {name!r} is in VOC layout"
        raise DatasetError(f"{message}, which does not say what classes there are; name them")
    (root,), class_names = paths, check_class_names(settings.VOC_CLASSES)
    check_voc_folder(root)
    splits, on_error = list_splits(root, class_names), voc_on_error(settings)
    return {f"{name}_{s}": voc_dataset(root, s, class_names, on_error) for s in splits}


def voc_on_error(settings: CfgNode) -> str:
    """Return what to do about faults: VOC_ON_ERROR is the older key, for VOC layout alone."""
    return settings.VOC_ON_ERROR if settings.ON_ERROR == "error" else settings.ON_ERROR


def voc_dataset(
    root: str, split: str, class_names: Sequence[str], on_error: str, year: int = 2012
) -> Dataset:
    """Return one split of a folder in VOC layout; see :func:`read_voc`."""
    metadata = {"thing_classes": list(class_names), "dirname": root, "split": split, "year": year}
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
    check_voc_folder(root)
    files = list_images(os.path.join(root, "JPEGImages"))
    split_file = os.path.join(root, "ImageSets", "Main", split + ".txt")
    ids, faults = read_split(split_file, files)
    tasks = [(image_id, files.get(image_id, ())) for image_id in ids]
    read_one = functools.partial(read_image, root, class_ids)
    return read_records(read_one, tasks, split_file, on_error, faults)


def read_image(root: str, class_ids: dict[str, int], named: tuple[str, Sequence[str]]) -> ReadImage:
    """Read one image of a folder in VOC layout.

    Args:
        class_ids: class name -> category id.
        named: the image's id, and the files below JPEGImages that have it as their name.

    Raises:
        DatasetError: the image is to be dropped.
    """
    image_id, files = named
    path = os.path.join(root, "JPEGImages", *(files[:1] or [image_id]))
    if not files:
        message = f"{path}{{{','.join(IMAGE_SUFFIXES)}}}: the image is missing"
        raise DatasetError(f"{message}; add it, or delete its id from the split", "missing image")
    if len(files) > 1:
        message = f"{path}: {len(files)} images have this id ({', '.join(sorted(files))})"
        raise DatasetError(f"{message}; keep one of them", "ambiguous image")
    header = read_header(path, "split")
    xml = os.path.join(root, "Annotations", image_id + ".xml")
    has_xml = os.path.lexists(xml)
    annotations, faults = _read_objects(xml, header, class_ids) if has_xml else ([], [])
    record = make_record(path, image_id, header.oriented_size, annotations)
    return ReadImage(record, has_xml, faults)


def _read_objects(
    xml: str, header: ImageHeader, class_ids: dict[str, int]
) -> tuple[list[dict[str, Any]], list[DatasetError]]:
    root = load_annotation(xml)
    size = annotated_size(root, xml) or header.oriented_size
    if size not in (header.oriented_size, header.size):
        message = "{}: <size> is {:g} x {:g} but the image is {} x {} pixels; correct one of them"
        raise DatasetError(message.format(xml, *size, *header.oriented_size), "wrong size")
    annotations, faults = [], []
    for index, element in enumerate(root.iterfind("object")):
        try:
            category_id, box, difficult = parse_object(element, size, class_ids)
        except DatasetError as error:
            message = f"{xml}: object {index} ({show(object_name(element))}): {error}"
            faults.append(DatasetError(message, error.kind))
            continue
        if size != header.oriented_size:
            box = header.rotate_box(box)
        annotations.append(make_annotation(box, category_id, difficult))
    return annotations, faults
