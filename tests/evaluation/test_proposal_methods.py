import os
import pickle
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
from nrpn_d2.evaluation.proposal_methods import (
    METHODS,
    MethodError,
    box_statistics,
    boxes_of_statistics,
    build_method,
    gaussian,
    gradient_edges,
    sliding_window,
    uniform,
)
from nrpn_d2.utils.boxes import box_iou, check_boxes

SQUARE = [60, 50, 160, 150]
FROM_CONTRIB = ("superpixels", "selective_search", "edge_boxes")


def scene(width=320, height=240):
    image = np.full((height, width, 3), 90, np.uint8)
    image[50:150, 60:160] = (200, 180, 40)
    return image


def statistics(*boxes):
    return box_statistics(np.array(boxes, float), np.full((len(boxes), 2), (320.0, 240)))


def propose(name, image, num=300):
    if name in FROM_CONTRIB:
        pytest.importorskip("cv2.ximgproc", reason="OpenCV without contrib")
    objects = statistics(SQUARE, [10, 20, 90, 80], [100, 30, 300, 200], [5, 5, 50, 100])
    method = pickle.loads(pickle.dumps(build_method(name, objects)))
    return method(image, num, np.random.default_rng(0))


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"bing"}))
def test_methods_give_boxes_in_the_image(name):
    for image in (scene(), np.zeros((100, 70, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)):
        boxes = propose(name, image)
        check_boxes(boxes, np.zeros(len(boxes)), name)
        height, width = image.shape[:2]
        assert (boxes >= 0).all() and (boxes <= [width, height] * 2).all()
        assert len(boxes) <= 300
    assert len(propose(name, scene(), num=7)) == 7
    np.testing.assert_array_equal(propose("gaussian", scene()), propose("gaussian", scene()))


@pytest.mark.parametrize("name", FROM_CONTRIB)
def test_methods_that_look_find_a_plain_square(name):
    assert box_iou(np.array(SQUARE), propose(name, scene())).max() > 0.9


def write_bing(folder):
    """A model of BING: a window's edges should be at its border; 36 sizes, 16 to 512."""
    border = np.full((8, 8), -1, np.float32)
    border[[0, -1]] = border[:, [0, -1]] = 2
    sizes = np.arange(36, dtype=np.int32)[:, None]
    calibration = np.tile(np.float32([[-1, 0]]), (36, 1))  # OpenCV puts small values first
    for colours in ("MAXBGR", "HSV", "I"):
        for part, matrix in (("wS1", border), ("idx", sizes), ("wS2", calibration)):
            name = f"ObjNessB2W8{colours}"
            storage = cv2.FileStorage(f"{folder}/{name}.{part}.yml.gz", cv2.FILE_STORAGE_WRITE)
            storage.write(name, matrix)
            storage.release()


def test_bing_with_a_model(tmp_path):
    pytest.importorskip("cv2.saliency", reason="OpenCV without contrib")
    write_bing(tmp_path)
    image = np.full((256, 320, 3), 90, np.uint8)
    image[64:192, 64:192] = (200, 180, 40)
    method = pickle.loads(pickle.dumps(build_method("bing", model=str(tmp_path))))
    boxes = method(image, 10_000, np.random.default_rng(0))
    assert boxes.min(axis=0).tolist()[:2] == [0, 0] and boxes.max(axis=0).tolist()[2:] == [320, 256]
    assert [64, 64, 192, 192] in boxes.tolist()  # one of its sizes, on its grid
    np.testing.assert_array_equal(method(image, 7, None), boxes[:7])


def write_edge_model(path):
    """A forest of four stumps: an edge in the patch's middle where its gradient is."""
    options = dict(
        stride=2,
        shrinkNumber=2,
        patchSize=32,
        patchInnerSize=16,
        numberOfGradientOrientations=4,
        gradientSmoothingRadius=0,
        regFeatureSmoothingRadius=2,
        ssFeatureSmoothingRadius=8,
        gradientNormalizationRadius=4,
        selfsimilarityGridSize=5,
        numberOfTrees=4,
        numberOfTreesToEvaluate=2,
    )
    middle = [y * 16 + x for y in (7, 8) for x in (7, 8)] * 24  # votes
    magnitude = 3 * 16 * 16 + 8 * 16 + 8  # channel 3, behind three colours; row 8, column 8
    bounds = [0]
    for _ in range(4):
        bounds += [bounds[-1], bounds[-1], bounds[-1] + len(middle)]  # of the root and two leaves
    nodes = {
        "childs": [[2, 0, 0]] * 4,
        "featureIds": [[magnitude, 0, 0]] * 4,
        "thresholds": [[0.05, 0.0, 0.0]] * 4,
        "edgeBoundaries": [bounds],
        "edgeBins": [middle * 4],
    }
    storage = cv2.FileStorage(path, cv2.FILE_STORAGE_WRITE)
    storage.startWriteStruct("options", cv2.FileNode_MAP)
    for name, value in options.items():
        storage.write(name, value)
    storage.endWriteStruct()
    for name, rows in nodes.items():
        storage.startWriteStruct(name, cv2.FileNode_SEQ)
        for row in rows:
            storage.startWriteStruct("", cv2.FileNode_SEQ)
            for value in row:
                storage.write("", value)
            storage.endWriteStruct()
        storage.endWriteStruct()
    storage.release()


def test_edge_boxes_with_a_model(tmp_path):
    pytest.importorskip("cv2.ximgproc", reason="OpenCV without contrib")
    path = str(tmp_path / "model.yml.gz")
    write_edge_model(path)
    method = pickle.loads(pickle.dumps(build_method("edge_boxes", model=path)))
    boxes = method(scene(), 300, np.random.default_rng(0))
    # The stumps' edges are some pixels outside of the square
    assert box_iou(np.array(SQUARE), boxes[:1])[0] > 0.75
    assert box_iou(boxes[:1], propose("edge_boxes", scene())[:1])[0] < 0.95


def test_sliding_windows_cover_all_parts_with_all_shapes():
    boxes = sliding_window(np.zeros((400, 400, 3), np.uint8), 1000, np.random.default_rng(0))
    # 8 x 8 windows, 8 = floor(sqrt(1000 / 15)), of 15 shapes. The largest that are not square,
    # 320 x 320 * sqrt(2), are cut to the side of the image and can move in one direction only.
    assert len(boxes) == len(np.unique(boxes, axis=0)) == 13 * 64 + 2 * 8
    shapes, counts = np.unique(np.round(boxes[:, 2:] - boxes[:, :2], 6), axis=0, return_counts=True)
    assert sorted(counts) == [8, 8] + [64] * 13
    # Size 0.1, ratio 1: 40 x 40.
    assert [40, 40] in shapes.tolist()
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(centre.mean(axis=0), 200)


def test_box_statistics_by_hand():
    # Centre (40, 90), 20 x 80: sqrt(1600) = 40; the image has sqrt(100 * 400) = 200.
    found = box_statistics(np.array([[30.0, 50, 50, 130]]), np.array([[100.0, 400]]))
    np.testing.assert_allclose(found, [[0.4, 0.225, 0.2, np.log(0.25)]])
    boxes = boxes_of_statistics(found, np.array([100.0, 400]))
    np.testing.assert_allclose(boxes, [[30, 50, 50, 130]])
    # Cut at the border; what lies outside is dropped.
    cut = boxes_of_statistics(found * [0, 1, 1, 1], np.array([100.0, 400]))
    np.testing.assert_allclose(cut, [[0, 50, 10, 130]])
    assert len(boxes_of_statistics(found + [2, 0, 0, 0], np.array([100.0, 400]))) == 0


def test_baselines_imitate_the_objects():
    rng = np.random.default_rng(1)
    objects = np.column_stack(
        [rng.normal(0.5, 0.02, (500, 2)), rng.normal(0.2, 0.01, 500), rng.normal(0.4, 0.1, 500)]
    )
    size = np.full((400, 2), (320.0, 240))
    like = box_statistics(gaussian(scene(), 400, rng, objects), size)
    np.testing.assert_allclose(like.mean(axis=0), objects.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(like.std(axis=0), objects.std(axis=0), rtol=0.2)
    flat = box_statistics(uniform(scene(), 400, rng, objects), size)
    low, high = np.quantile(objects, (0.005, 0.995), axis=0)
    assert (flat >= low - 1e-9).all() and (flat <= high + 1e-9).all()
    # The standard deviation of a uniform distribution is its width by sqrt(12).
    np.testing.assert_allclose(flat.std(axis=0), (high - low) / 12**0.5, rtol=0.1)


def test_edges_of_a_square():
    edges, orientations = gradient_edges(scene())
    assert edges.dtype == orientations.dtype == np.float32
    assert edges.max() == 1 and (edges > 0).mean() < 0.02
    # Across the left side is horizontal: angle 0 (or just below pi); across the top, pi / 2.
    y, x = 100, 50 + edges[100, 50:70].argmax()
    assert abs(x - 60) <= 1 and abs(np.sin(orientations[y, x])) < 0.05
    y, x = 40 + edges[40:60, 110].argmax(), 110
    assert abs(y - 50) <= 1 and orientations[y, x] == pytest.approx(np.pi / 2, abs=0.05)


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    with pytest.raises(MethodError, match="gaussian needs a training set"):
        build_method("gaussian", np.empty((0, 4)))
    with pytest.raises(MethodError, match="bing needs the folder"):
        build_method("bing")
    with pytest.raises(MethodError, match="no trained model of BING.*ObjectnessTrainedModel"):
        build_method("bing", model=str(tmp_path))(scene(), 10, None)
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    for name in FROM_CONTRIB:
        with pytest.raises(MethodError, match="Install opencv-contrib-python-headless"):
            build_method(name)(scene(), 10, np.random.default_rng(0))
    assert "opencv-contrib-python-headless" == proposal_methods.CONTRIB


@pytest.mark.parametrize("method", ["gaussian", "selective_search"])
def test_the_file_does_not_depend_on_the_number_of_processes(tmp_path, method):
    if method in FROM_CONTRIB:
        pytest.importorskip("cv2.ximgproc", reason="OpenCV without contrib")
    rng = np.random.default_rng(0)
    with registered([[(SQUARE, 0)], [([5, 5, 50, 100], 0)]] * 3, ["ring"]) as name:
        for n, record in enumerate(DatasetCatalog.get(name)):
            record["file_name"] = str(tmp_path / f"{n}.png")
            noise = Image.fromarray(rng.integers(0, 256, (15, 20, 3), np.uint8))
            noise.resize((400, 300)).save(record["file_name"])
        files = [str(tmp_path / f"{processes}.pkl") for processes in (1, 2)]
        for path, processes in zip(files, "12"):
            arguments = [method, "--dataset", name, "--fit-to", name, "--num", "50"]
            make([*arguments, "--output", path, "--processes", processes])
    one, two = map(load_proposals, files)
    assert list(one) == list(two) == list("012345")
    for image_id, (boxes, logits) in one.items():
        assert 0 < len(boxes) <= 50 and logits is None
        np.testing.assert_array_equal(boxes, two[image_id].boxes)
    assert not np.array_equal(one["0"].boxes[:5], one["1"].boxes[:5])


def make(arguments):
    make_proposals.main(make_proposals.parse_args(arguments))


def die(image, num, rng):
    os.kill(os.getpid(), signal.SIGKILL)  # what a system without memory does


def test_proposals_without_a_c_library_to_seed(monkeypatch):
    def refuse(name):
        raise TypeError("bad argument")  # as on Windows

    monkeypatch.setattr(proposal_methods.ctypes, "CDLL", refuse)
    assert len(propose("selective_search", scene())) > 0


def test_a_process_that_dies_ends_the_tool(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "sliding_window", die)
    monkeypatch.setattr(proposal_methods, "read_image", lambda *_: scene())
    output = str(tmp_path / "x.pkl")
    with registered([[]] * 2, ["ring"]) as name:
        with pytest.raises(MethodError, match="one of 2 processes died.*fewer --processes"):
            make(["sliding_window", "--dataset", name, "--output", output, "--processes", "2"])
    assert not os.path.exists(output)


def test_commands_that_cannot_work(tmp_path):
    with registered([[]], ["ring"]) as name:
        output = ["--dataset", name, "--output", str(tmp_path / "x.pkl")]
        for arguments, message in (
            (["gaussian", *output], "gaussian needs a training set"),
            (["sliding", *output], "'sliding' is unknown; it must be one of sliding_window, "),
            (["uniform", "--output", "x.txt"], "ends in .pkl"),
            (["sliding_window", *output, "--num", "0"], "--num 0 .* must be at least 1"),
            (["bing", *output, "--model", str(tmp_path), "--processes", "2"], "0.jpg"),
            (["sliding_window", *output, "--processes", "1"], "0.jpg"),
        ):
            with pytest.raises((ValueError, OSError), match=message):
                make(arguments)
    assert not (tmp_path / "x.pkl").exists()
