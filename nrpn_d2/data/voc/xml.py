"""One VOC annotation file -> image size and objects, or the fault by its name.

The files come from strangers: they are parsed by defusedxml (document types, entities and
external references are refused) and may not exceed ``MAX_XML_BYTES``.
"""

from xml.etree.ElementTree import Element, ParseError, SubElement

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from ...utils.text_files import read_bytes
from ..faults import Box, DatasetError, clip_box, did_you_mean, show, to_number

MAX_XML_BYTES = 16 * 2**20  # about 40,000 objects
_REMEDY = "repair the file, or delete its id from the split"


def load_annotation(path: str) -> Element:
    """Parse one file and return its ``<annotation>`` element.

    Raises:
        DatasetError: the file is unreadable, too large, not well-formed, declares a document type
            or is no VOC annotation.
    """
    try:
        content = read_bytes(path, MAX_XML_BYTES)
    except ValueError as error:
        raise DatasetError(f"{error}; {_REMEDY}", "broken XML") from None
    try:
        root = defusedxml.ElementTree.fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        message = f"{path}: document types and entities are refused ({type(error).__name__})"
        raise DatasetError(f"{message}; remove the <!DOCTYPE ...> part", "broken XML") from None
    except (ParseError, ValueError, LookupError) as error:  # the last two for unknown encodings
        message = f"{path}: not well-formed XML ({error}); {_REMEDY}, or save it as UTF-8"
        raise DatasetError(message, "broken XML") from None
    if root.tag != "annotation":
        message = f"{path}: the root is <{show(root.tag)}>, not <annotation>; {_REMEDY}"
        raise DatasetError(message, "broken XML")
    return root


def annotated_size(root: Element, path: str) -> tuple[float, float] | None:
    """Return the annotated (width, height) in pixels, or None without a ``<size>``."""
    size = root.find("size")
    if size is None:
        return None
    try:
        return _number(size, "width"), _number(size, "height")
    except DatasetError as error:
        raise DatasetError(f"{path}: <size>: {error}, or delete <size>", "wrong size") from None


def parse_object(
    element: Element, size: tuple[float, float], class_ids: dict[str, int]
) -> tuple[int, Box, int]:
    """Check one ``<object>`` and convert its box to 0-based coordinates.

    VOC counts pixels from 1 and includes the last one, so a box that covers an image of W x H
    pixels is (1, 1, W, H); as in Detectron2's reader it becomes (0, 0, W, H). Tools that count
    from 0, or exclude the last pixel, exceed this by one pixel: boxes up to (0, 0, W + 1, H + 1)
    are accepted and clipped.

    Args:
        size: (width, height) of the image that the box refers to, in pixels.
        class_ids: class name -> category id.

    Returns:
        Category id, box, and 1 for a difficult object, 0 otherwise.

    Raises:
        DatasetError: the first fault found and its remedy; the message names no file.
    """
    name = object_name(element)
    if name not in class_ids:
        raise DatasetError(_unknown_class(name, class_ids), "unknown class")
    boxes = element.findall("bndbox")
    if len(boxes) != 1:
        raise DatasetError(f"it has {len(boxes)} <bndbox> instead of one; correct it", "bad box")
    xmin, ymin, xmax, ymax = (_number(boxes[0], tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    shown = f"box ({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g})"
    if xmax == xmin or ymax == ymin:
        raise DatasetError(f"{shown} has no area; remove or redraw it", "degenerate box")
    box = clip_box((xmin - 1, ymin - 1, xmax, ymax), size, shown)
    difficult = (element.findtext("difficult") or "").strip() or "0"
    if difficult not in ("0", "1"):
        raise DatasetError(f"<difficult> is {show(difficult)}; make it 0 or 1", "bad number")
    return class_ids[name], box, int(difficult)


def object_name(element: Element) -> str:
    """Return the object's class name, "" without one."""
    return (element.findtext("name") or "").strip()


def add_element(parent: Element, tag: str, **texts: str | int) -> Element:
    """Add ``<tag>`` with an element of its own for each text, and return it."""
    element = SubElement(parent, tag)
    for name, text in texts.items():
        SubElement(element, name).text = str(text)
    return element


def _number(parent: Element, tag: str) -> float:
    text = parent.findtext(tag)
    if text is None:
        raise DatasetError(f"<{tag}> is missing; add it", "bad number")
    return to_number(text, f"<{tag}>")


def _unknown_class(name: str, class_ids: dict[str, int]) -> str:
    if not name:
        return "it has no <name>; add one"
    hint = did_you_mean(name, class_ids)
    known = show(sorted(class_ids))
    return f"its class is not in the list {known}; {hint}Correct the name or extend the list"
