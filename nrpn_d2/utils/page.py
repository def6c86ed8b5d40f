"""Pages for people: one HTML file without any reference to another, for every tool.

What is not :class:`Html` is escaped wherever it enters a page, so that no class or file name can
become markup. page.css and page.js stand beside this file.

    write_page(path, "Check of mine", [section("Classes", table(["", "objects"], rows))])
"""

import base64
import hashlib
import io
import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from detectron2.data.detection_utils import read_image
from PIL import Image

from .saving import atomic_open

_SIDE = 288  # pixels of a picture's longer side
MAX_BOXES = 100  # drawn on a picture
_VOID = ("img", "input", "br")


class Html(str):
    """Markup, which enters a page as it is."""


class Cell(NamedTuple):
    """A cell of a table that is more than its text."""

    text: Any
    value: float | None = None  # to sort by; default: the number that the text begins with
    shade: float | None = None  # from 0 to 1: of the background


class Box(NamedTuple):
    """A box on a picture."""

    corners: Sequence[float]  # x0, y0, x1, y1 in pixels of the image
    look: str = "object"  # a key of LOOKS
    label: str = ""


# Told apart with any colour vision (and by the dashes); the colours are in page.css
LOOKS = {
    "object": "object",
    "hit": "found",
    "fault": "wrong",
    "missed": "missed",
    "ignored": "ignored",
}


def markup(*content: Any) -> Html:
    """Join markup and text."""
    return Html("".join(x if isinstance(x, Html) else escape(str(x)) for x in content))


def element(name: str, *content: Any, **attributes: Any) -> Html:
    """Return an element. An attribute that is None is left out, one that is True has no value; of
    its name, a last "_" is dropped and others become "-".
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.removesuffix("_").replace("_", "-")
        if value is not None:
            parts.append(key if value is True else f'{key}="{escape(str(value))}"')
    closing = "" if name in _VOID else f"{markup(*content)}</{name}>"
    return Html(f"<{' '.join(parts)}>{closing}")


def section(title: str, *content: Any) -> Html:
    """Return a part of the page with a heading."""
    return element("section", element("h2", title), *content)


def paragraph(*content: Any, class_: str | None = None) -> Html:
    return element("p", *content, class_=class_)


def tiles(items: Iterable[tuple[Any, str, str]]) -> Html:
    """Return the numbers that count most, large: value, what it is, and a remark."""
    shown = (
        element("div", element("b", value), element("span", label), element("small", remark))
        for value, label, remark in items
    )
    return element("div", *shown, class_="tiles")


def grid(*figures: Html, large: bool = False) -> Html:
    """Put figures side by side, as many as there is room for."""
    return element("div", *figures, class_="grid large" if large else "grid")


def details(summary: str, *content: Any) -> Html:
    """Return what is shown only on demand."""
    return element("details", element("summary", summary), *content)


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], sortable: bool = True) -> Html:
    """Return a table; a click on a column's header sorts it. Cells are text, numbers or Cells."""
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    looks = map(_look, cells[0]) if cells else ()
    heads = (element("th", x, scope="col", class_=look) for x, look in zip_longest(header, looks))
    head = element("thead", element("tr", *heads))
    body = element("tbody", *(element("tr", *map(_td, row)) for row in cells))
    inner = element("table", head, body, class_="sortable" if sortable else None)
    return element("div", inner, class_="wide", tabindex=0)


def _td(cell: Cell) -> Html:
    shade = None if cell.shade is None else f"--shade:{100 * cell.shade:.0f}%"
    attributes = {"data_value": cell.value, "style": shade, "class_": _look(cell)}
    return element("td", number(cell.text), **attributes)


def _look(cell: Cell) -> str | None:
    """Return the class of a cell whose text is no number."""
    text = str(number(cell.text))
    return None if not text or re.match(r"[-+\u2212]?[\d.]|n/a$", text) else "text"


def number(value: Any, digits: int = 3) -> Any:
    """Return a float as short text, n/a for nan and None; anything else as it is."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return "n/a"
    if not isinstance(value, float):
        return value
    return f"{value:.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def figure(content: Html, caption: Any = "") -> Html:
    return element("figure", content, *([element("figcaption", caption)] if caption else []))


def picture(image: np.ndarray, boxes: Sequence[Box] = (), alt: str = "", side: int = _SIDE) -> Html:
    """Return a small copy of an image (H, W, 3), with boxes in its pixels, the first on top.

    Args:
        alt: what it shows, for those who cannot see it.
        side: of the copy, the longer side in pixels.
    """
    height, width = image.shape[:2]
    small = Image.fromarray(np.asarray(image, np.uint8))
    small.thumbnail((side, side))
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=75)
    href = f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    pixels = element("image", href=href, width=width, height=height, preserveAspectRatio="none")
    inside = [box for box in boxes if _touches(box.corners, width, height)][:MAX_BOXES]
    drawn = (_rectangle(box, width, height) for box in reversed(inside))
    attributes = {"viewBox": f"0 0 {width} {height}", "aria-label": alt or "picture"}
    return zoomable("svg", pixels, *drawn, class_="picture", **attributes)


def _touches(corners: Sequence[float], width: int, height: int) -> bool:
    x0, y0, x1, y1 = corners
    return x1 >= 0 and y1 >= 0 and x0 <= width and y0 <= height


def file_picture(path: str, boxes: Sequence[Box] = (), side: int = _SIDE) -> Html:
    """Return the :func:`picture` of a file, or a remark where it cannot be read."""
    try:
        return picture(read_image(path, "RGB"), boxes, path, side)
    except Exception:  # Pillow's parsers raise nearly anything on a broken file
        return paragraph("(unreadable)")


def zoomable(name: str, *content: Any, class_: str, **attributes: Any) -> Html:
    """Return an element, a picture, that a click magnifies."""
    class_ = f"{class_} zoomable"
    return element(name, *content, class_=class_, role="button", tabindex=0, **attributes)


def legend(*looks: str, **names: str) -> Html:
    """Explain the boxes of pictures; ``names`` are other words for some of LOOKS."""
    words = LOOKS | names
    keys = (element("span", element("i", class_=look), words[look]) for look in looks)
    return paragraph(*keys, class_="legend")


def _rectangle(box: Box, image_width: int, image_height: int) -> Html:
    x0, y0, x1, y1 = box.corners
    shortest = max(image_height, image_width) / 60  # a box without area would not be visible
    width, height = max(x1 - x0, shortest), max(y1 - y0, shortest)
    x, y = (x0 + x1 - width) / 2, (y0 + y1 - height) / 2
    place = {key: f"{value:.1f}" for key, value in zip("xy", (x, y))}
    size = {"width": f"{width:.1f}", "height": f"{height:.1f}"}
    drawn = element("rect", **place, **size, class_=box.look)
    if box.label:
        em = max(image_height, image_width) / 22
        left, above = x < 0.6 * image_width, y > em
        drawn += element(
            "text",
            box.label,
            x=f"{x if left else x + width:.1f}",
            y=f"{y - 0.25 * em if above else y + height + 0.9 * em:.1f}",
            font_size=f"{em:.1f}",
            text_anchor=None if left else "end",
            class_=box.look,
        )
    return Html(drawn)


def page(title: str, content: Sequence[Any], script: str = "") -> str:
    """Return a whole page.

    Args:
        content: sections and what else there is, from top to bottom.
        script: more JavaScript than page.js, trusted.
    """
    style, *scripts = _template("css"), _template("js"), *([script] if script else [])
    # Only these scripts may run, whatever else should get into the page
    hashes = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'unsafe-inline'; script-src {allowed}"
    )
    head = element(
        "head",
        Html('<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'),
        element("title", title),
        element("style", Html(style)),
    )
    body = element(
        "body", element("h1", title), *content, *(element("script", Html(s)) for s in scripts)
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def write_page(path: str, title: str, content: Sequence[Any], script: str = "") -> None:
    """Write a :func:`page`."""
    with atomic_open(path, "w") as file:
        file.write(page(title, content, script))


def _template(suffix: str) -> str:
    return resources.files(__package__).joinpath(f"page.{suffix}").read_text("utf-8")
