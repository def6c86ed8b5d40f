"""One VOC annotation file -> image size and objects, or the fault by its name.

The files come from strangers: they are parsed by defusedxml (document types, entities and
external references are refused) and may not exceed ``MAX_XML_BYTES``.
"""

import difflib
import math
import os
import reprlib
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

MAX_XML_BYTES = 16 * 2**20  # about 40,000 objects
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_REMEDY = "repair the file, or delete its id from the split"
_show = reprlib.Repr()
_show.maxstring = 60


class VOCError(ValueError):
    """A dataset in VOC layout that cannot be used as it is.

    The message names the file, the object (its index and name) and the remedy.

    Attributes:
        kind (str): the fault in two or three words, e.g. "degenerate box"; dropped objects and
            images are counted by it.
    """

    def __init__(self, message: str, kind: str = "dataset"):
        super().__init__(message)
        self.kind = kind


class VOCObject(NamedTuple):
    category_id: int
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in 0-based pixel coordinates
    difficult: int  # 0 or 1


def load_annotation(path: str) -> Element:
    """Parses one file and returns its ``<annotation>`` element.

    Raises:
        VOCError: the file is unreadable, too large, not well-formed, declares a document type or
            is no VOC annotation.
    """
    content = _read_file(path)
    try:
        root = defusedxml.ElementTree.fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        message = f"{path}: document types and entities are refused ({type(error).__name__})"
        raise VOCError(f"{message}; remove the <!DOCTYPE ...> part", "broken XML") from None
    except ParseError as error:
        message = f"{path}: not well-formed XML ({error})"
        raise VOCError(f"{message}; {_REMEDY}; is it saved as UTF-8?", "broken XML") from None
    except (ValueError, LookupError) as error:  # from pyexpat, for encodings it cannot decode
        message = f"{path}: cannot be decoded ({error}); save it as UTF-8"
        raise VOCError(message, "broken XML") from None
    if root.tag != "annotation":
        message = f"{path}: the root is <{_show.repr(root.tag)}>, not <annotation>; {_REMEDY}"
        raise VOCError(message, "broken XML")
    return root


def annotated_size(root: Element, path: str) -> tuple[float, float] | None:
    """(width, height) in pixels as the annotation has it; None without a ``<size>``.

    Raises:
        VOCError: one of the two is missing or no number.
    """
    size = root.find("size")
    if size is None:
        return None
    sides = []
    for tag in ("width", "height"):
        try:
            sides.append(_number(size, tag))
        except VOCError as error:
            raise VOCError(f"{path}: <size>: {error}, or delete <size>", "wrong size") from None
    return tuple(sides)


def parse_object(
    element: Element, size: tuple[float, float], class_ids: dict[str, int]
) -> VOCObject:
    """Checks one ``<object>`` and converts its box to 0-based coordinates.

    VOC counts pixels from 1 and includes the last one, so a box that covers an image of W x H
    pixels is (1, 1, W, H); as in Detectron2's reader it becomes (0, 0, W, H). Tools that count
    from 0, or exclude the last pixel, exceed this by one pixel: boxes up to (0, 0, W + 1, H + 1)
    are accepted and clipped.

    Args:
        element: an ``<object>``.
        size: (width, height) of the image that the box refers to, in pixels.
        class_ids: class name -> category id.

    Raises:
        VOCError: the first fault found and its remedy; the message names no file.
    """
    name = (element.findtext("name") or "").strip()
    if name not in class_ids:
        raise VOCError(_unknown_class(name, class_ids), "unknown class")
    boxes = element.findall("bndbox")
    if len(boxes) != 1:
        message = f"it has {len(boxes)} <bndbox> instead of one; correct it"
        raise VOCError(message, "bad box")
    box = [_number(boxes[0], edge) for edge in _EDGES]
    return VOCObject(class_ids[name], _pixel_box(box, size), _difficult(element))


def object_name(element: Element) -> str:
    """The object's class name as error messages show it."""
    return _show.repr((element.findtext("name") or "").strip())


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """Returns the names as a list; raises VOCError where one is missing, doubled or no string."""
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
        raise VOCError(f"class names must be a list of strings, not {_show.repr(class_names)}")
    names = list(class_names)
    if not names:
        raise VOCError("the list of class names is empty; give one name per class")
    for name in names:
        if not name.strip() or name != name.strip():
            raise VOCError(f"class name {name!r} is empty or has spaces around it")
        if names.count(name) > 1:
            raise VOCError(f"class name {name!r} is given more than once")
    return names


def _read_file(path: str) -> bytes:
    try:
        if not os.path.isfile(path):
            raise OSError("not a regular file")
        with open(path, "rb") as file:
            content = file.read(MAX_XML_BYTES + 1)
    except OSError as error:
        raise VOCError(f"{path}: cannot be read ({error}); {_REMEDY}", "broken XML") from None
    if len(content) > MAX_XML_BYTES:
        raise VOCError(f"{path}: larger than {MAX_XML_BYTES} bytes; {_REMEDY}", "broken XML")
    return content


def _number(parent: Element, tag: str) -> float:
    text = parent.findtext(tag)
    if text is None:
        raise VOCError(f"<{tag}> is missing; add it", "bad number")
    try:
        if "_" in text:  # Python's own notation, nobody else's
            raise ValueError
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise VOCError(f"<{tag}> is {_show.repr(text)}; make it a finite number", "bad number")
    return value


def _pixel_box(box: list[float], size: tuple[float, float]) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = box
    width, height = size
    shown = f"box ({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g})"
    if xmax < xmin or ymax < ymin:
        raise VOCError(f"{shown} has its ends swapped; exchange min and max", "swapped box")
    if xmax == xmin or ymax == ymin:
        raise VOCError(f"{shown} has no area; remove or redraw it", "degenerate box")
    if xmin < 0 or ymin < 0 or xmax > width + 1 or ymax > height + 1:
        message = f"{shown} leaves the image of {width:g} x {height:g} pixels; correct it"
        raise VOCError(message, "box outside the image")
    clipped = max(xmin - 1, 0.0), max(ymin - 1, 0.0), min(xmax, width), min(ymax, height)
    if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
        message = f"{shown} covers less than one pixel; is it in pixels, not fractions?"
        raise VOCError(message, "degenerate box")
    return tuple(map(float, clipped))


def _difficult(element: Element) -> int:
    text = (element.findtext("difficult") or "0").strip() or "0"
    if text not in ("0", "1"):
        message = f"<difficult> is {_show.repr(text)}; make it 0 or 1"
        raise VOCError(message, "bad number")
    return int(text)


def _unknown_class(name: str, class_ids: dict[str, int]) -> str:
    if not name:
        return "it has no <name>; add one"
    likely = difflib.get_close_matches(name[:100], class_ids, n=1)
    hint = f"did you mean {likely[0]!r}? " if likely else ""
    known = _show.repr(sorted(class_ids))
    return f"its class is not in the list {known}; {hint}Correct the name or extend the list"
