"""Boxes, labels and legends on images."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nrpn_d2.evaluation.panels import Kind, Layer, Panel, crop, label_place, picture_grid

KIND, OTHER = Kind("proposal", "#0072B2"), Kind("labelled object", "#E69F00", "--")


def drawn(*panels, columns=1):
    figure = picture_grid(panels, columns)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure, np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def test_grid():
    image, objects = np.zeros((40, 60, 3), np.uint8), np.array([[1, 2, 30, 20]])
    boxes = np.array([[0, 0, 10, 10], [5, 25, 20, 35]])
    layers = [Layer(OTHER, objects), Layer(KIND, boxes, ["disk 0.9", "$\\frac$"])]
    figure, _ = drawn(Panel("RPN", image, layers), Panel("none", image), columns=2)
    first, none = figure.axes
    assert (first.get_title(), none.get_title()) == ("RPN", "none") and not none.patches
    corners = [[*p.get_xy(), p.get_x() + p.get_width()] for p in first.patches]
    assert corners == [box[:3].tolist() for box in (*objects, *boxes[::-1])]  # the best on top
    assert [text.get_text() for text in first.texts] == ["disk 0.9", "$\\frac$"]
    assert first.get_xlim() == (0, 60) and first.get_ylim() == (40, 0)


@pytest.mark.parametrize("columns", [1, 4])
def test_the_legend_is_within_the_picture_and_covers_nothing(columns):
    kinds = [Kind(f"{n} {'a long name ' * 4}", "r") for n in range(6)]
    box = np.array([[1, 2, 30, 20]])
    image = np.zeros((40, 60, 3), np.uint8)
    panels = [Panel("", image, [Layer(kind, box) for kind in kinds]) for _ in range(columns)]
    figure, _ = drawn(*panels, columns=columns)
    (legend,) = figure.legends
    extent = legend.get_window_extent()
    assert len(legend.get_texts()) == 6
    assert 0 <= extent.x0 and extent.x1 <= figure.bbox.x1 and 0 <= extent.y0
    assert not any(extent.overlaps(axes.get_tightbbox()) for axes in figure.axes)


@pytest.mark.parametrize("background", [0, 128, 255])
def test_boxes_are_visible_on_any_background(background):
    image = np.full((40, 40, 3), background, np.uint8)
    figure, pixels = drawn(Panel("", image, [Layer(KIND, np.array([[8, 8, 32, 32]]))]))
    x0, y0, x1, y1 = (int(v) for v in figure.axes[0].patches[0].get_window_extent().extents)
    row = pixels[len(pixels) - (y0 + y1) // 2, x0 - 8 : x0 + 8].sum(axis=1) / 3
    assert np.ptp(row) > 90  # the line and its white rim differ, whatever is behind them


@pytest.mark.parametrize("box", [(20, 30, 60, 60), (0, 0, 100, 100), (90, 0, 100, 5)])
def test_labels_stay_in_the_image_and_off_each_other(box):
    taken = []
    for _ in range(1 if box[0] == 90 else 4):
        place = label_place(np.array(box, float), (20, 8), (100, 100), taken)
        assert (place >= 0).all() and (place <= 100).all()
        for other in taken:
            sides = np.minimum(place[2:], other[2:]) - np.maximum(place[:2], other[:2])
            assert min(sides) <= 1e-9
        taken.append(place)
    assert tuple(taken[0][:2]) == (20, 22) if box[0] == 20 else True  # over the box, if it can be


def test_crop_moves_into_the_image():
    image = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3)
    panel = Panel("", image, [Layer(KIND, np.array([[50, 30, 58, 38]]))])
    part = crop(panel, np.array([58.0, 39.0]), 20)
    assert np.array_equal(part.image, image[20:, 40:])
    assert part.layers[0].boxes.tolist() == [[10, 10, 18, 18]]
    assert crop(panel, np.array([58.0, 39.0]), 500).image.shape == image.shape
