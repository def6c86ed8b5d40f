"""Pictures: images with boxes of several kinds, with their labels and a legend, as a Figure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from .figures import COLORS, draw_legend

_WIDTH, _FONT = 3.2, 8  # of a panel in inches, of its labels in points


class Kind(NamedTuple):
    """What boxes are, as the legend calls it, and how they look; also without colours."""

    name: str
    color: str
    style: str | tuple = "-"
    width: float = 1.5


OBJECT = Kind("labelled object", COLORS[4], (0, (3, 1.5)))


class Layer(NamedTuple):
    kind: Kind
    boxes: np.ndarray  # (K, 4) x0, y0, x1, y1 in pixels of the image
    labels: Sequence[str] = ()  # of the first boxes


class Panel(NamedTuple):
    """An image and what is drawn on it, the last on top."""

    title: str
    image: np.ndarray  # (H, W, 3) uint8, RGB
    layers: Sequence[Layer] = ()


def crop(panel: Panel, centre: np.ndarray, side: float) -> Panel:
    """Return the square part of a panel around a point x, y, moved or cut where the image ends."""
    image, start = crop_image(panel.image, centre, side)
    layers = [x._replace(boxes=x.boxes - np.tile(start, 2)) for x in panel.layers]
    return Panel(panel.title, image, layers)


def crop_image(image: np.ndarray, centre: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the square part of an image as :func:`crop` does, and the point x, y it starts at."""
    size = np.array(image.shape[1::-1])
    start = np.clip(centre - side / 2, 0, np.maximum(size - side, 0)).astype(int)
    (x0, y0), (x1, y1) = start, np.minimum(start + math.ceil(side), size)
    return image[y0:y1, x0:x1], start


def picture_grid(panels: Sequence[Panel], columns: int) -> Figure:
    """Draw panels row by row, as high as the images need it, with a legend below."""
    rows = max(math.ceil(len(panels) / columns), 1)
    ratios = [panel.image.shape[0] / panel.image.shape[1] for panel in panels] or [1]
    highest = [max(ratios[n * columns : (n + 1) * columns]) for n in range(rows)]
    heights = (_WIDTH * np.clip(highest, 0.4, 1.5)).tolist()
    layers = [layer for panel in panels for layer in panel.layers if len(layer.boxes)]
    kinds = list(dict.fromkeys(layer.kind for layer in layers))
    # In inches; a letter of the legend takes up to 0.08
    longest = max((0.08 * len(kind.name) + 0.6 for kind in kinds), default=1)
    legend_columns = max(int(_WIDTH * columns / longest), 1)
    below = 0.3 + 0.25 * math.ceil(len(kinds) / legend_columns)
    title_lines = 1 + max((panel.title.count("\n") for panel in panels), default=0)
    height = sum(heights) + (0.1 + 0.2 * title_lines) * rows + below
    figure = Figure(figsize=(max(_WIDTH * columns, longest), height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, panel in zip(grid.flat, panels):
        draw_panel(axes, panel)
    lines = [Line2D([], [], color=k.color, ls=k.style, lw=k.width + 0.5) for k in kinds]
    draw_legend(figure, lines, [kind.name for kind in kinds], legend_columns)
    return figure


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw an image, its boxes and, where they cover least, their labels.

    Lines and texts have a white rim, which keeps them visible on any background.
    """
    height, width = panel.image.shape[:2]
    axes.imshow(panel.image, extent=(0, width, height, 0), interpolation="bicubic")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_title(panel.title, fontsize="medium", parse_math=False)
    for kind, boxes, _ in panel.layers:
        line = {"color": kind.color, "linestyle": kind.style, "linewidth": kind.width}
        line["path_effects"] = [withStroke(linewidth=kind.width + 2, foreground="white")]
        for x0, y0, x1, y1 in boxes[::-1]:  # the best one on top
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, **line))
    taken: list[np.ndarray] = []
    point = max(width / _WIDTH, height / (1.5 * _WIDTH)) / 72  # in pixels of the image
    for kind, boxes, labels in panel.layers:
        for box, label in zip(boxes, labels):
            text_size = 0.65 * _FONT * len(label) * point, 1.3 * _FONT * point
            place = label_place(box, text_size, (width, height), taken)
            taken.append(place)
            look = {"color": kind.color, "size": _FONT, "weight": "bold", "va": "top"}
            look["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]
            axes.text(*place[:2], label, parse_math=False, **look).set_in_layout(False)


def label_place(
    box: np.ndarray, size: tuple[float, float], image_size: tuple[int, int], taken: list[np.ndarray]
) -> np.ndarray:
    """Return the rectangle of a label: at its box's edge, where it covers least of other labels.

    Args:
        box: x0, y0, x1, y1.
        size, image_size: width and height.
        taken: rectangles of labels.
    """
    (x0, y0, x1, y1), (width, height) = box, size
    columns = x0, (x0 + x1 - width) / 2, x1 - width
    corners = [(x, y) for y in (y0 - height, y1) for x in columns]  # outside
    corners += [(x, y) for y in (y0, y1 - height) for x in columns]  # inside
    corners += [(x1, y) for y in (y0, y1 - height)] + [(x0 - width, y) for y in (y0, y1 - height)]
    places = np.array([(x, y, x + width, y + height) for x, y in corners])
    shift = np.clip(places[:, :2], 0, np.maximum(np.subtract(image_size, size), 0)) - places[:, :2]
    # A label that the image's edge pushes away stands on its box, or far from it
    cost = 0.3 * np.abs(shift).sum(axis=1) / height + 0.1 * (np.arange(len(places)) >= 6)
    places = places + np.tile(shift, 2)
    for other in taken:
        sides = np.minimum(places[:, 2:], other[2:]) - np.maximum(places[:, :2], other[:2])
        cost += np.maximum(sides, 0).prod(axis=1) / (width * height)
    return places[cost.argmin()]
