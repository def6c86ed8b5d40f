import os
import signal

import cv2
import make_proposals
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image
from registered_dataset import registered

from nrpn_d2.data.proposal_files import load_proposals
from nrpn_d2.evaluation import proposal_methods
from nrpn_d2.evaluation.proposal_methods import METHODS, gradient_edges
from nrpn_d2.utils.boxes import box_iou, check_boxes

SQUARE = [60, 50, 160, 150]


def scene(width=320, height=240):
    image = np.full((height, width, 3), 90, np.uint8)
    image[50:150, 60:160] = (200, 180, 40)
    return image


def propose(name, image, num=300):
    if name != "sliding_window":
        pytest.importorskip("cv2.ximgproc", reason="OpenCV without contrib")
    return METHODS[name](image, num, np.random.default_rng(0))


@pytest.mark.parametrize("name", METHODS)
def test_methods_give_boxes_in_the_image(name):
    for image in (scene(), np.zeros((100, 70, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)):
        boxes = propose(name, image)
        check_boxes(boxes, np.zeros(len(boxes)), name)
        height, width = image.shape[:2]
        assert (boxes >= 0).all() and (boxes <= [width, height] * 2).all()
        assert len(boxes) <= 300
    assert len(propose(name, scene(), num=7)) == 7


@pytest.mark.parametrize("name", ["selective_search", "edge_boxes"])
def test_methods_that_look_find_a_plain_square(name):
    assert box_iou(np.array(SQUARE), propose(name, scene())).max() > 0.9


def test_sliding_windows_cover_all_parts_with_all_shapes():
    boxes = propose("sliding_window", np.zeros((400, 400, 3), np.uint8), 1000)
    # 8 x 8 windows, 8 = floor(sqrt(1000 / 15)), of 15 shapes. The largest that are not square,
    # 320 x 320 * sqrt(2), are cut to the side of the image and can move in one direction only.
    assert len(boxes) == len(np.unique(boxes, axis=0)) == 13 * 64 + 2 * 8
    shapes, counts = np.unique(np.round(boxes[:, 2:] - boxes[:, :2], 6), axis=0, return_counts=True)
    assert sorted(counts) == [8, 8] + [64] * 13
    # Size 0.1, ratio 1: 40 x 40.
    assert [40, 40] in shapes.tolist()
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(centre.mean(axis=0), 200)


def test_edges_of_a_square():
    edges, orientations = gradient_edges(scene())
    assert edges.dtype == orientations.dtype == np.float32
    assert edges.max() == 1 and (edges > 0).mean() < 0.02
    # Across the left side is horizontal: angle 0 (or just below pi); across the top, pi / 2.
    y, x = 100, 50 + edges[100, 50:70].argmax()
    assert abs(x - 60) <= 1 and abs(np.sin(orientations[y, x])) < 0.05
    y, x = 40 + edges[40:60, 110].argmax(), 110
    assert abs(y - 50) <= 1 and orientations[y, x] == pytest.approx(np.pi / 2, abs=0.05)


@pytest.mark.parametrize("method", ["sliding_window", "selective_search"])
def test_the_file_does_not_depend_on_the_number_of_processes(tmp_path, method):
    if method != "sliding_window":
        pytest.importorskip("cv2.ximgproc", reason="OpenCV without contrib")
    rng = np.random.default_rng(0)
    with registered([[]] * 6, ["ring"]) as name:
        for n, record in enumerate(DatasetCatalog.get(name)):
            record["file_name"] = str(tmp_path / f"{n}.png")
            noise = Image.fromarray(rng.integers(0, 256, (15, 20, 3), np.uint8))
            noise.resize((400, 300)).save(record["file_name"])
        files = [str(tmp_path / f"{processes}.pkl") for processes in (1, 2)]
        for path, processes in zip(files, "12"):
            make(method, "--dataset", name, "--num=50", "--output", path, "--processes", processes)
    one, two = map(load_proposals, files)
    assert list(one) == list(two) == list("012345")
    for image_id, (boxes, logits) in one.items():
        assert 0 < len(boxes) <= 50 and logits is None
        np.testing.assert_array_equal(boxes, two[image_id].boxes)
    assert not np.array_equal(one["0"].boxes[:5], one["1"].boxes[:5])


def make(*arguments):
    make_proposals.main(make_proposals.parse_args([*arguments]))


def test_proposals_without_a_c_library_to_seed(monkeypatch):
    def refuse(name):
        raise TypeError("bad argument")  # as on Windows

    monkeypatch.setattr(proposal_methods.ctypes, "CDLL", refuse)
    assert len(propose("selective_search", scene())) > 0


def die(image, num, rng):
    os.kill(os.getpid(), signal.SIGKILL)  # what a system without memory does


def test_what_cannot_work_is_named(tmp_path, monkeypatch):
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    monkeypatch.setitem(METHODS, "die", die)
    output = str(tmp_path / "x.pkl")
    with registered([[]] * 2, ["ring"]) as name:
        to_file = ["--dataset", name, "--output", output]
        with pytest.raises(OSError, match="0.jpg"):
            make("sliding_window", *to_file, "--processes", "1")
        monkeypatch.setattr(proposal_methods, "read_image", lambda *_: scene())
        for arguments, message in (
            (["edge_boxes", *to_file], "packages .* by opencv-contrib-python-headless"),
            (["sliding", *to_file], "'sliding' is unknown; it must be one of selective_search, "),
            (["sliding_window", "--output", "x.txt"], "ends in .pkl"),
            (["sliding_window", *to_file, "--num", "0"], "--num 0 .* must be at least 1"),
            (["die", *to_file, "--processes", "2"], "one of 2 processes died.*fewer --processes"),
        ):
            with pytest.raises(ValueError, match=message):
                make(*arguments)
    assert not os.path.exists(output)
