"""Draw predictions: readable at any image size, and no label covers its object."""

import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..utils.boxes import covered_fraction

# Okabe and Ito's, which the colour-blind can tell apart
_COLORS = "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
PALETTE = [ImageColor.getrgb(color) for color in _COLORS]
_SHORTEST = 800  # pixels of the longer side; smaller images are enlarged
_FONT = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")

Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1


def draw(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str],
    classes: Sequence[int],
    masks: np.ndarray | None = None,
) -> np.ndarray:
    """Return a picture of an image and of boxes around their objects, with a label at each.

    Images of equal size give pictures of equal size. A margin leaves room for lines and labels.

    Args:
        image: (H, W, 3) uint8, RGB.
        boxes: (K, 4) x0, y0, x1, y1 in pixels of the image.
        labels: K texts.
        classes: K numbers that choose colours.
        masks: (K, H, W) bool.

    Returns:
        (H', W', 3) uint8, RGB; both sides are even, as videos need it.
    """
    colors = [PALETTE[c % len(PALETTE)] for c in classes]
    image = image.copy()
    for mask, color in zip([] if masks is None else masks, colors):
        image[mask] = 0.6 * image[mask] + 0.4 * np.array(color)
    height, width = image.shape[:2]
    scale = max(1.0, _SHORTEST / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    font_size = max(16, max(size) // 50)
    line = max(4, font_size // 4)
    font = ImageFont.truetype(_FONT, font_size)
    label_height = sum(font.getmetrics()) + 2
    left, top = line + 1, line + 1 + label_height
    canvas_size = (-(-(size[0] + 2 * left) // 2) * 2, -(-(size[1] + top + line + 1) // 2) * 2)
    canvas = Image.new("RGB", canvas_size, "white")
    canvas.paste(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), (left, top))
    pen = ImageDraw.Draw(canvas)
    objects = [tuple(box) for box in np.asarray(boxes).reshape(-1, 4) * scale + [left, top] * 2]
    for box, color in zip(reversed(objects), reversed(colors)):  # the best one on top
        # around the object, not on it; the dark rim makes it visible on its own colour
        for grow, width, fill in ((line + 1, line + 1, "black"), (line, line - 1, color)):
            x0, y0, x1, y1 = box[0] - grow, box[1] - grow, box[2] + grow, box[3] + grow
            pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=fill, width=width)
    placed: list[Rectangle] = []
    for box, label, color in zip(objects, labels, colors):
        label_size = pen.textlength(label, font=font) + 4, label_height
        place = label_place(box, label_size, canvas_size, line + 1, objects + placed)
        placed.append(place)
        pen.rectangle(place, fill=color)
        is_bright = np.dot(color, (0.299, 0.587, 0.114)) > 110
        pen.text((place[0] + 2, place[1] + 1), label, "black" if is_bright else "white", font)
    return np.asarray(canvas)


def label_place(
    box: Rectangle,
    size: tuple[float, float],
    canvas: tuple[int, int],
    distance: float,
    others: Sequence[Rectangle],
) -> Rectangle:
    """Return where a label goes: beside its box, where it covers least of anything else.

    Above the box there is always room, because the canvas has a margin there.
    """
    x0, y0, x1, y1 = box
    width, height = size
    corners = [
        (x0 - distance, y0 - distance - height),
        (x0 - distance, y1 + distance),
        (x1 + distance, y0),
        (x0 - distance - width, y0),
    ]
    corners[:2] = [(max(0, min(x, canvas[0] - width)), y) for x, y in corners[:2]]
    places = [(x, y, x + width, y + height) for x, y in corners]
    inside = [p for p in places if min(p) >= 0 and p[2] <= canvas[0] and p[3] <= canvas[1]]
    return min(inside, key=lambda p: covered_fraction(p, others).sum(), default=places[0])
