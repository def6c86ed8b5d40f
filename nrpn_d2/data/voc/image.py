"""One image of a folder in VOC layout: its header and its XML, checked against each other."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from ..image_header import ImageHeader, read_image_header
from .layout import IMAGE_SUFFIXES
from .xml import (
    VOCError,
    VOCObject,
    annotated_size,
    load_annotation,
    object_name,
    parse_object,
)

ImageFiles = tuple[str, Sequence[str]]  # image id; its files, relative to JPEGImages


class VOCImage(NamedTuple):
    """What was read of one image."""

    size: tuple[int, int] | None  # (width, height); None: the image is dropped
    objects: list[VOCObject]
    has_xml: bool
    faults: list[VOCError]


def xml_path(root: str, image_id: str) -> str:
    return os.path.join(root, "Annotations", image_id + ".xml")


def read_image(root: str, class_ids: dict[str, int], named: ImageFiles) -> VOCImage:
    """Reads one image; what is wrong with it is returned, not raised.

    Args:
        root: the folder in VOC layout.
        class_ids: class name -> category id.
        named: the image's id, and the files that have it as their name.
    """
    image_id, files = named
    xml = xml_path(root, image_id)
    has_xml = os.path.lexists(xml)
    objects: list[VOCObject] = []
    faults: list[VOCError] = []
    try:
        header = _image_header(_image_file(root, image_id, files))
        if has_xml:
            objects, faults = _read_objects(xml, header, class_ids)
    except VOCError as error:
        return VOCImage(None, [], has_xml, [error])
    return VOCImage(header.oriented_size, objects, has_xml, faults)


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
    xml: str, header: ImageHeader, class_ids: dict[str, int]
) -> tuple[list[VOCObject], list[VOCError]]:
    root = load_annotation(xml)
    size = annotated_size(root, xml) or header.oriented_size
    if size not in (header.oriented_size, header.size):
        message = "{}: <size> is {:g} x {:g} but the image is {} x {} pixels; correct one of them"
        raise VOCError(message.format(xml, *size, *header.oriented_size), "wrong size")
    objects, faults = [], []
    for index, element in enumerate(root.iterfind("object")):
        try:
            found = parse_object(element, size, class_ids)
        except VOCError as error:
            message = f"{xml}: object {index} ({object_name(element)}): {error}"
            faults.append(VOCError(message, error.kind))
            continue
        if size != header.oriented_size:
            found = found._replace(box=header.rotate_box(found.box))
        objects.append(found)
    return objects, faults
