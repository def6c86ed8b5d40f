"""Curves as SVG in a page: small, sharp, in the page's own colours and fonts, drawn in a moment."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .page import Html, element, figure, markup, paragraph, zoomable

WIDTH, HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 38
NUM_COLORS = 7  # of page.css; after them, the lines are dashed


class Line(NamedTuple):
    """A curve: P points, nan where there is none."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None  # with ``high``: an interval, drawn as a band
    high: Sequence[float] | None = None
    color: int | None = None  # default: its place
    dashed: bool = False


class Mark(NamedTuple):
    """What is marked along x: a place or, with ``end``, a range."""

    name: str
    start: float
    end: float | None = None


class _Axis(NamedTuple):
    """Maps values to pixels from ``first`` to ``last``."""

    low: float
    high: float
    first: float
    last: float
    log: bool

    def __call__(self, values: Any) -> np.ndarray:
        low, high, values = self.low, self.high, np.asarray(values, float)
        if self.log:
            low, high, values = np.log10(low), np.log10(high), np.log10(np.maximum(values, low))
        return self.first + (self.last - self.first) * (values - low) / (high - low)

    def ticks(self) -> list[float]:
        if self.log:
            decades = math.ceil(math.log10(self.high)) - math.floor(math.log10(self.low))
            steps = (1, 2, 5) if decades < 3 else (1,)
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ticks = [step * 10.0**power for power in powers for step in steps]
        else:
            rough = (self.high - self.low) / 6
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
            first = math.ceil(self.low / step - 1e-6)
            ticks = [step * i for i in range(first, first + 9)]
        return [t for t in ticks if self.low * (1 - 1e-9) - 1e-12 <= t <= self.high * (1 + 1e-9)]


def line_chart(
    title: str,
    lines: Sequence[Line],
    xlabel: str,
    ylabel: str = "",
    *,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
    marks: Sequence[Mark] = (),
) -> Html:
    """Return a figure with its legend below it; a picture to be magnified.

    Args:
        y_range: of the axis; by default from 0 or less to the largest value.
    """
    points = [np.empty((2, 0)), *(np.array([line.x, line.y], float) for line in lines)]
    xs, ys = np.concatenate(points, axis=1)
    xs, ys = xs[np.isfinite(ys)], ys[np.isfinite(ys)]
    if log_x:
        xs = xs[xs > 0]
    if not len(xs) or not len(ys):
        return Html()
    low, high = y_range or (min(ys.min(), 0), max(ys.max(), 0) or 1)
    first, last = xs.min(), xs.max()
    if first == last:  # a point alone
        last += max(1, 0.05 * abs(last))
    x = _Axis(first, last, _LEFT, WIDTH - _RIGHT, log_x)
    y = _Axis(low, high * 1.02, HEIGHT - _BOTTOM, _TOP, False)
    drawn = [*_grid(x, y), *_marks(marks, x)]
    looks = [_look(number, line) for number, line in enumerate(lines)]
    for line, look in zip(lines, looks):
        if line.low is not None and line.high is not None:
            ends = np.array([line.x, line.low, line.high], float)
            at, *ends = ends[:, np.isfinite(ends).all(axis=0)]
            around = np.append(at, at[::-1]), np.append(ends[0], ends[1][::-1])
            drawn.append(element("path", d=_path(x, y, *around), class_=f"band {look}"))
        drawn.append(element("path", d=_path(x, y, line.x, line.y), class_=look))
    middle, centre = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
    turned = f"rotate(-90 11 {centre})"
    drawn.append(element("text", xlabel, x=middle, y=HEIGHT - 5, text_anchor="middle"))
    drawn.append(element("text", ylabel, x=11, y=centre, transform=turned, text_anchor="middle"))
    named = len(lines) > 1 or any(line.color is not None for line in lines)
    keys = [(look, line.name) for look, line in zip(looks, lines)] if named else []
    keys += [("mark", mark.name) for mark in marks]
    shown = (element("span", element("i", class_=look), name) for look, name in keys)
    view = f"0 0 {WIDTH} {HEIGHT}"
    return figure(
        markup(
            element("h3", title),
            zoomable("svg", *drawn, class_="plot", viewBox=view, aria_label=title),
            paragraph(*shown, class_="legend"),
        )
    )


def _look(number: int, line: Line) -> str:
    number = number if line.color is None else line.color
    return f"c{number % NUM_COLORS}{' dashed' * (line.dashed or number >= NUM_COLORS)}"


def _grid(x: _Axis, y: _Axis) -> Iterator[Html]:
    for value, at in zip(x.ticks(), x(x.ticks()).tolist()):
        yield element("path", d=f"M{at:.1f},{y.last}V{y.first}", class_="grid-line")
        yield element("text", f"{value:g}", x=f"{at:.1f}", y=y.first + 14, text_anchor="middle")
    for value, at in zip(y.ticks(), y(y.ticks()).tolist()):
        yield element("path", d=f"M{x.first},{at:.1f}H{x.last}", class_="grid-line")
        yield element("text", f"{value:g}", x=x.first - 5, y=f"{at + 4:.1f}", text_anchor="end")


def _marks(marks: Sequence[Mark], x: _Axis) -> Iterator[Html]:
    for mark in marks:
        ends = mark.start, mark.start if mark.end is None else mark.end
        first, last = np.clip(x(np.clip(ends, x.low, x.high)), _LEFT, WIDTH - _RIGHT).tolist()
        width = max(last - first, 1.5)
        size = {"width": f"{width:.1f}", "height": HEIGHT - _BOTTOM - _TOP}
        look = "mark" if mark.end is not None else "mark place"
        yield element("rect", x=f"{first:.1f}", y=_TOP, **size, class_=look)


def _path(x: _Axis, y: _Axis, xs: Sequence[float], ys: Sequence[float]) -> str:
    """Return the line through the points; it is broken where there is none."""
    points = np.column_stack([x(xs), np.clip(y(ys), 0, HEIGHT)]).round(1)
    drawn = np.isfinite(points).all(axis=1) & ((np.asarray(xs) > 0) if x.log else True)
    commands, pen_down = [], False
    for (px, py), ok in zip(points.tolist(), drawn.tolist()):
        if ok:
            # h0: a point without neighbours is a dot
            commands.append(f"L{px:g},{py:g}" if pen_down else f"M{px:g},{py:g}h0")
        pen_down = ok
    return "".join(commands)
