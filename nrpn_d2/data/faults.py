"""What can be wrong with a dataset of any format: the error, and checks of names and boxes."""

import difflib
import math
import reprlib
from collections.abc import Iterable, Sequence

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in 0-based pixel coordinates

_repr = reprlib.Repr()
_repr.maxstring = 60


class DatasetError(ValueError):
    """A dataset that cannot be used as it is.

    The message names the file, the object (its index and name) and the remedy.

    Attributes:
        kind: the fault in two or three words, e.g. "degenerate box"; dropped objects and images
            are counted by it.
    """

    def __init__(self, message: str, kind: str = "dataset"):
        super().__init__(message)
        self.kind = kind


def show(value: object) -> str:
    """Return a short form of whatever a file contains, for messages."""
    return _repr.repr(value)


def check_class_names(class_names: Sequence[str], origin: str = "") -> list[str]:
    """Return the names as a list.

    Raises:
        DatasetError: starts with ``origin``; there is no name, or one is empty, repeated or no
            string.
    """
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
        message = f"{origin}class names must be a list of strings, not {show(class_names)}"
        raise DatasetError(message)
    names = list(class_names)
    if not names:
        raise DatasetError(f"{origin}the list of class names is empty; give one name per class")
    for name in names:
        if not name or name != name.strip():
            raise DatasetError(f"{origin}class name {name!r} is empty or has spaces around it")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{origin}class name {repeated!r} is given more than once")
    return names


def to_number(text: str, what: str) -> float:
    """Return a finite number, or raise DatasetError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:  # Python's own notation, nobody else's
        raise DatasetError(f"{what} is {show(text)}; make it a finite number", "bad number")
    return value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint to the most similar known name, or an empty string."""
    likely = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"did you mean {likely[0]!r}? " if likely else ""


def clip_box(
    box: Sequence[float],
    size: tuple[float, float],
    shown: str,
    hint: str = "is it in pixels, not fractions?",
) -> Box:
    """Clip a box to its image; tools that count pixels otherwise exceed it by up to one pixel.

    Args:
        size: (width, height) of the image.
        shown: the box as its file has it, for messages.
        hint: what to do about a box of less than one pixel.

    Raises:
        DatasetError: the box has no area or leaves the image, or less than one pixel is inside.
    """
    (x0, y0, x1, y1), (width, height) = box, size
    if x1 < x0 or y1 < y0:
        raise DatasetError(f"{shown} has a negative width or height; correct it", "swapped box")
    if x1 == x0 or y1 == y0:
        raise DatasetError(f"{shown} has no area; remove or redraw it", "degenerate box")
    if x0 < -1 or y0 < -1 or x1 > width + 1 or y1 > height + 1:
        message = f"{shown} leaves the image of {width:g} x {height:g} pixels; correct it"
        raise DatasetError(message, "box outside the image")
    clipped = max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)
    if not (clipped[2] - clipped[0] >= 1 and clipped[3] - clipped[1] >= 1):  # true for NaN, too
        raise DatasetError(f"{shown} covers less than one pixel; {hint}", "degenerate box")
    return tuple(map(float, clipped))
