"""Filled forms on structured backgrounds, with the exact mask of what stays visible.

Pixels come from +, -, *, / and square roots alone, which IEEE 754 rounds alike everywhere, and
random numbers from ``Generator.random``, so that a seed gives the same picture on any platform.

Coordinates: x to the right, y down; pixel (column, row) has its centre at (column + 0.5,
row + 0.5). (H, W) are the picture's rows and columns.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

Point = tuple[float, float]
Color = np.ndarray  # (3,) float, RGB in 0..255
Plane = np.ndarray  # (H, W) float


class Shape(NamedTuple):
    form: str  # a key of FORMS
    center: Point
    radius: float  # pixels
    axis: Point  # unit vector: the form's rotation
    color: Color
    shade: Color  # added at the rim in direction of the axis, subtracted at the opposite rim


def random_color(rng: np.random.Generator) -> Color:
    return 30 + 195 * rng.random(3)


def random_axis(rng: np.random.Generator) -> Point:
    while True:
        x, y = 2 * rng.random(2) - 1
        squared = x * x + y * y
        if 0.01 < squared <= 1:
            return x / sqrt(squared), y / sqrt(squared)


# ---- Forms: signed distance in pixels (negative inside) of (u, v), given the radius r.


def _disk(u: Plane, v: Plane, r: float) -> Plane:
    return np.sqrt(u * u + v * v) - r


def _box(u: Plane, v: Plane, half_width: float, half_height: float) -> Plane:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _square(u: Plane, v: Plane, r: float) -> Plane:
    return _box(u, v, 0.85 * r, 0.85 * r)


def _triangle(u: Plane, v: Plane, r: float) -> Plane:
    return np.maximum(v, sqrt(0.75) * np.abs(u) - 0.5 * v) - 0.6 * r


def _outline(form: Callable) -> Callable:
    def distance(u: Plane, v: Plane, r: float) -> Plane:
        thickness = max(0.1 * r, 0.9)
        return np.abs(form(u, v, r - thickness)) - thickness

    return distance


OBJECT_FORMS: dict[str, Callable] = {"disk": _disk, "square": _square, "triangle": _triangle}
# Near-misses: outlines, fragments, similar forms.
DISTRACTOR_FORMS: dict[str, Callable] = {
    "ring": _outline(_disk),
    "square outline": _outline(_square),
    "triangle outline": _outline(_triangle),
    "arc": lambda u, v, r: np.maximum(_outline(_disk)(u, v, r), v + 0.2 * r),
    "angle": lambda u, v, r: np.maximum(_outline(_square)(u, v, r), u + v),
    "half disk": lambda u, v, r: np.maximum(_disk(u, v, r), v),
    "quarter disk": lambda u, v, r: np.maximum(_disk(u, v, r), np.maximum(u, v)),
    "crescent": lambda u, v, r: np.maximum(_disk(u, v, r), -_disk(u - 0.5 * r, v, 0.9 * r)),
    "notched square": lambda u, v, r: np.maximum(_square(u, v, r), np.minimum(u, v)),
    "trapezoid": lambda u, v, r: np.maximum(_triangle(u, v, r), -0.15 * r - v),
    "ellipse": lambda u, v, r: (np.sqrt(u * u + 5 * v * v) - r) / sqrt(5),
    "bar": lambda u, v, r: _box(u, v, r, 0.33 * r),
    "line": lambda u, v, r: _box(u, v, r, 0.9),
    "cross": lambda u, v, r: np.minimum(_box(u, v, r, 0.28 * r), _box(u, v, 0.28 * r, r)),
    "star": lambda u, v, r: np.minimum(_triangle(u, v, 0.8 * r), _triangle(u, -v, 0.8 * r)),
    "hexagon": lambda u, v, r: np.maximum(abs(u), 0.5 * abs(u) + sqrt(0.75) * abs(v)) - 0.87 * r,
}
FORMS = OBJECT_FORMS | DISTRACTOR_FORMS
FORMS["occluder"] = lambda u, v, r: _box(u, v, 1.3 * r, 0.5 * r)


def draw(background: np.ndarray, shapes: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
    """Paint the shapes over the background, later ones over earlier ones.

    Args:
        background: (H, W, 3) float, RGB.

    Returns:
        (H, W, 3) uint8, the picture; and (H, W) int, which shape (its index; -1: none) covers
        the greatest part of each pixel.
    """
    picture = background.copy()
    owner = np.full(background.shape[:2], -1)
    for index, shape in enumerate(shapes):
        window, alpha = coverage(shape, owner.shape)
        rows, columns = window
        across = shape.axis[0] * _offsets(columns, shape.center[0])[None, :]
        along = across + shape.axis[1] * _offsets(rows, shape.center[1])[:, None]
        color = shape.color + along[..., None] / shape.radius * shape.shade
        picture[window] += alpha[..., None] * (color - picture[window])
        owner[window][alpha >= 0.5] = index
    return np.floor(np.clip(picture, 0, 255) + 0.5).astype(np.uint8), owner


def coverage(shape: Shape, size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Find which part of each pixel a shape covers, alone.

    Returns:
        The (rows, columns) around the shape, inside the (H, W) of ``size``; and the part of each
        pixel there, in 0..1.
    """
    reach = 1.5 * shape.radius + 2
    window = tuple(
        slice(max(int(center - reach), 0), min(int(center + reach) + 1, length))
        for center, length in zip(shape.center[::-1], size)
    )
    x = _offsets(window[1], shape.center[0])[None, :]
    y = _offsets(window[0], shape.center[1])[:, None]
    cosine, sine = shape.axis
    distance = FORMS[shape.form](cosine * x + sine * y, cosine * y - sine * x, shape.radius)
    return window, np.clip(0.5 - distance, 0, 1)


def _offsets(pixels: slice, center: float) -> np.ndarray:
    return np.arange(pixels.start, pixels.stop) + 0.5 - center


# ---- Backgrounds: weight in 0..1 of the second of two similar colors, (H, W).


def random_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a gradient, stripes, checkerboard or smooth noise, with grain: (size, size, 3) float."""
    kind = BACKGROUNDS[int(rng.random() * len(BACKGROUNDS))]
    first = random_color(rng)
    second = first + 60 * (rng.random(3) - 0.5)
    grain = 6 * (rng.random((size, size, 1)) - 0.5)
    return first + kind(rng, size)[..., None] * (second - first) + grain


def _gradient(rng: np.random.Generator, size: int) -> Plane:
    return np.clip(_ramps(rng, size)[0] / size + 0.5, 0, 1)


def _stripes(rng: np.random.Generator, size: int) -> Plane:
    period = 6 + 18 * rng.random()
    phase = _ramps(rng, size)[0] / period
    return np.abs(2 * (phase - np.floor(phase)) - 1)


def _checkerboard(rng: np.random.Generator, size: int) -> Plane:
    cell = 5 + 12 * rng.random()
    cells = np.floor(_ramps(rng, size, cell))
    parity = cells[0] + cells[1]
    return parity - 2 * np.floor(parity / 2)


def _ramps(rng: np.random.Generator, size: int, cell: float = 1) -> np.ndarray:
    """Return coordinates along a random axis and across it: (2, H, W)."""
    x, y = random_axis(rng)
    center = (np.arange(size) + 0.5 - size / 2) / cell
    across, down = center[None, :], center[:, None]
    return np.stack([x * across + y * down, x * down - y * across])


def _smooth_noise(rng: np.random.Generator, size: int) -> Plane:
    total = np.zeros((size, size))
    for cells, weight in ((4, 0.55), (9, 0.3), (20, 0.15)):
        position = np.arange(size) / size * cells
        low = position.astype(int)
        part = position - low
        part = part * part * (3 - 2 * part)
        grid = rng.random((cells + 1, cells + 1))
        rows = grid[low] + part[:, None] * (grid[low + 1] - grid[low])
        total += weight * (rows[:, low] + part * (rows[:, low + 1] - rows[:, low]))
    return total


BACKGROUNDS = (_gradient, _stripes, _checkerboard, _smooth_noise)
