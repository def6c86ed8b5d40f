"""One image of a folder in VOC layout: its header and its XML, checked against each other."""

import os
from collections.abc import Sequence
from typing import Any

from ..faults import DatasetError
from ..image_header import ImageHeader
from ..reading import ReadImage, make_annotation, make_record, read_header
from .layout import IMAGE_SUFFIXES
from .xml import annotated_size, load_annotation, object_name, parse_object

ImageFiles = tuple[str, Sequence[str]]  # image id; its files, relative to JPEGImages


def read_image(root: str, class_ids: dict[str, int], named: ImageFiles) -> ReadImage:
    """Read one image; its faults are returned, not raised.

    Args:
        root: the folder in VOC layout.
        class_ids: class name -> category id.
        named: the image's id, and the files that have it as their name.
    """
    image_id, files = named
    xml = os.path.join(root, "Annotations", image_id + ".xml")
    has_xml = os.path.lexists(xml)
    annotations: list[dict[str, Any]] = []
    faults: list[DatasetError] = []
    try:
        path = _image_file(root, image_id, files)
        header = read_header(path, "split")
        if has_xml:
            annotations, faults = _read_objects(xml, header, class_ids)
    except DatasetError as error:
        return ReadImage(None, has_xml, [error])
    record = make_record(path, image_id, header.oriented_size, annotations)
    return ReadImage(record, has_xml, faults)


def _image_file(root: str, image_id: str, files: Sequence[str]) -> str:
    if not files:
        path = os.path.join(root, "JPEGImages", image_id)
        message = f"{path}{{{','.join(IMAGE_SUFFIXES)}}}: the image is missing"
        raise DatasetError(f"{message}; add it, or delete its id from the split", "missing image")
    if len(files) > 1:
        path = os.path.join(root, "JPEGImages", files[0])
        message = f"{path}: {len(files)} images have this id ({', '.join(sorted(files))})"
        raise DatasetError(f"{message}; keep one of them", "ambiguous image")
    return os.path.join(root, "JPEGImages", files[0])


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
            message = f"{xml}: object {index} ({object_name(element)}): {error}"
            faults.append(DatasetError(message, error.kind))
            continue
        if size != header.oriented_size:
            box = header.rotate_box(box)
        annotations.append(make_annotation(box, category_id, difficult))
    return annotations, faults
