"""Labels stand beside their objects, and everything can be seen."""

import numpy as np
import pytest

from nrpn_d2.deploy.pictures import draw, label_place


@pytest.mark.parametrize("size", [(60, 80), (1200, 900), (7, 300)])
def test_no_label_covers_its_object(size):
    height, width = size
    image = np.full((*size, 3), 128, np.uint8)
    boxes = [(0, 0, width, height), (0, 0, width / 3, 2), (width / 2, height / 2, width, height)]
    for box in boxes:
        picture = draw(image, np.array([box]), ["a long name 0.93"], [0])
        scale = max(1, 800 / max(size))
        left = (picture.shape[1] - width * scale) // 2
        top = picture.shape[0] - round(height * scale) - left
        x0, y0, x1, y1 = (np.array(box) * scale + [left, top] * 2).astype(int)
        inside = picture[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3]
        assert (inside == 128).all()
        assert (picture != 128).any(axis=2).sum() > 500  # line and label are somewhere


def test_pictures_are_readable_and_fit_a_video():
    boxes = np.array([[3, 4, 20, 30]])
    shapes = set()
    for n in (0, 1):
        picture = draw(np.zeros((61, 83, 3), np.uint8), boxes[:n], ["a"] * n, [0] * n)
        shapes.add(picture.shape)
    ((height, width, _),) = shapes
    assert width >= 800 and height % 2 == width % 2 == 0


def test_label_avoids_the_others():
    box, size, canvas = (100, 100, 200, 200), (60, 20), (400, 400)
    above = label_place(box, size, canvas, 3, [box])
    assert above[3] < 100
    below = label_place(box, size, canvas, 3, [box, above])
    assert below[1] > 200
    right = label_place(box, size, canvas, 3, [box, above, below])
    assert right[0] > 200


def test_masks_tint_their_objects():
    image, mask = np.full((800, 800, 3), 128, np.uint8), np.zeros((1, 800, 800), bool)
    mask[0, 300:400, 300:400] = True
    box = np.array([[250, 250, 450, 450]])
    plain, tinted = (draw(image, box, ["a"], [0], masks) for masks in (None, mask))
    assert (plain != tinted).any(axis=2).sum() == 100 * 100
    assert (image == 128).all()  # the argument stays
