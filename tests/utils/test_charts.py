"""Curves as SVG: where points land, what breaks a line, and what cannot be drawn."""

import re

import numpy as np
import pytest

from nrpn_d2.utils.charts import HEIGHT, WIDTH, Line, Mark, line_chart


def paths(svg, look):
    """The points of each piece of the lines of a class."""
    (d,) = re.findall(rf'<path d="([^"]*)" class="{look}">', svg)
    pieces = [re.findall(r"([\d.]+),([\d.]+)", piece) for piece in d.split("M")[1:]]
    return [[(float(x), float(y)) for x, y in piece] for piece in pieces]


def labels(svg):
    return re.findall(r"<text[^>]*>([^<]+)</text>", svg)


def test_a_line_is_broken_where_there_is_no_number():
    svg = line_chart("t", [Line("a", [0, 1, 2, 3], [1, np.nan, 2, 4])], "x", "y")
    first, second = paths(svg, "c0")
    assert len(first) == 1 and len(second) == 2
    (x0, y0), (x2, y2), (x3, y3) = *first, *second
    assert 0 < x0 < x2 < x3 < WIDTH and np.isclose(x3 - x2, (x2 - x0) / 2, atol=0.1)
    assert HEIGHT > y0 > y2 > y3 > 0 and np.isclose(y2 - y3, 2 * (y0 - y2), atol=0.2)
    assert labels(svg) == [
        "0",
        "0.5",
        "1",
        "1.5",
        "2",
        "2.5",
        "3",
        "0",
        "1",
        "2",
        "3",
        "4",
        "x",
        "y",
    ]


def test_counts_on_a_logarithmic_axis():
    svg = line_chart("t", [Line("a", [0, 1, 10, 100], [9, 1, 1, 1])], "x", log_x=True)
    ((left, middle, right),) = paths(svg, "c0")  # 0 has no place
    assert np.isclose(middle[0] - left[0], right[0] - middle[0], atol=0.2)
    assert {"1", "10", "100"} < set(labels(svg)) and "0.1" not in labels(svg)


def test_bands_marks_and_legend():
    lines = [
        Line("<a>", [0, 1], [1, 1], [0.5, 0.5], [1.5, 1.5]),
        Line("b", [0, 1], [2, 2], color=0, dashed=True),
    ]
    svg = line_chart("<t>", lines, "x", marks=[Mark("<warm-up>", -5, 0.5), Mark("end", 0.75)])
    assert svg.count('class="band c0"') == 1 and svg.count('class="c0 dashed"') == 2
    range_, place = re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)"', svg)
    assert float(range_[1]) > 100 > 5 > float(place[1])
    assert "&lt;warm-up&gt;" in svg and "&lt;a&gt;" in svg and "<h3>&lt;t&gt;</h3>" in svg


def test_a_band_is_drawn_where_it_is_known():
    low, high = [0.5, 0.5, np.nan, np.nan], [1.5, 1.5, np.nan, 1.5]
    svg = line_chart("t", [Line("a", range(4), [1, 1, 1, 1], low, high)], "x")
    (band,) = paths(svg, "band c0")
    (a, b, c, d), (line,) = band, paths(svg, "c0")
    assert a[0] == d[0] == line[0][0] and b[0] == c[0] == line[1][0]
    assert a[1] == b[1] > line[0][1] > c[1] == d[1]


@pytest.mark.parametrize("x", [0.5, 19_999, 2e7, 1e300])
def test_the_ticks_around_a_point_alone_differ(x):
    below = labels(line_chart("t", [Line("a", [x], [1])], "x", y_range=(0, 1)))[:-7]
    assert len(set(below)) == len(below) > 0


def test_nothing_to_draw():
    for lines in ([], [Line("a", [], [])], [Line("a", [1, 2], [np.nan, np.nan])]):
        assert line_chart("t", lines, "x") == ""
    point = line_chart("t", [Line("a", [3], [0])], "x")  # of no height
    assert len(paths(point, "c0")) == 1 and "h0" in point


def test_an_axis_that_starts_far_from_0_has_ticks():
    svg = line_chart("t", [Line("a", [100_000, 100_500], [1, 2])], "x")
    assert {"100000", "100500"} <= set(labels(svg))
