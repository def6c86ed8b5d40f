"""The embedded dataset: same seed, same bytes, and boxes that are right."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from nrpn_d2.data import SHAPES_CLASSES, make_shapes, read_voc
from nrpn_d2.data.shapes import dataset as shapes
from nrpn_d2.data.shapes.dataset import find_objects, make_image, plan_scene
from nrpn_d2.data.shapes.drawing import FORMS, OBJECT_FORMS, Shape, coverage, draw

SMALL = {"num_train": 12, "num_test": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_shapes(str(tmp_path_factory.mktemp("data") / "shapes"), **SMALL)


def content(root):
    paths = [os.path.join(parent, name) for parent, _, names in os.walk(root) for name in names]
    return {os.path.relpath(path, root): open(path, "rb").read() for path in paths}


def scenes(count, size=160):
    for index in range(count):
        yield plan_scene(np.random.default_rng(index), size)


def shape(form, center, radius, axis=(1.0, 0.0)):
    return Shape(form, center, radius, axis, np.full(3, 255.0), np.zeros(3))


def test_folder_is_in_voc_layout(folder):
    for split, count in (("train", 12), ("test", 4)):
        records = read_voc(folder, split, SHAPES_CLASSES)
        assert [record["image_id"] for record in records] == [
            f"{split}_{index:05d}" for index in range(count)
        ]
        for index, record in enumerate(records):
            pixels, objects = make_image(0, split, index, 160)
            assert np.array_equal(np.asarray(Image.open(record["file_name"])), pixels)
            assert [tuple(note["bbox"]) for note in record["annotations"]] == [
                drawn.box for drawn in objects
            ]
            assert [SHAPES_CLASSES[note["category_id"]] for note in record["annotations"]] == [
                drawn.name for drawn in objects
            ]
            assert [note["difficult"] for note in record["annotations"]] == [
                drawn.difficult for drawn in objects
            ]


def test_same_seed_same_bytes(folder, tmp_path):
    again = content(make_shapes(str(tmp_path / "again"), **SMALL))
    assert again == content(folder)
    other = content(make_shapes(str(tmp_path / "other"), seed=1, **SMALL))
    assert all(other[name] != again[name] for name in again if name.endswith(".png"))


def test_an_image_does_not_depend_on_the_number_of_images(folder, tmp_path):
    fewer = content(make_shapes(str(tmp_path / "fewer"), num_train=3, num_test=1))
    full = content(folder)
    assert all(fewer[name] == full[name] for name in fewer if name.endswith((".png", ".xml")))
    assert not np.array_equal(make_image(0, "train", 0, 160)[0], make_image(0, "test", 0, 160)[0])


def test_a_change_of_the_pictures_needs_a_new_version():
    """The pixels are the same on every platform: see drawing.py."""
    digest = hashlib.sha256()
    for index in range(40):
        pixels, objects = make_image(0, "train", index, 160)
        digest.update(pixels.tobytes())
        digest.update(str([drawn[:4] for drawn in objects]).encode())
    assert {shapes.VERSION: digest.hexdigest()[:16]} == {1: "74f012a3c43928cb"}


def extent(mask):
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_boxes_are_the_extents_of_the_visible_pixels():
    """Against a picture without the object: nothing changes outside of the box but its rim.

    A rim pixel that is covered by less than a half changes, too, and is not the object's. At the
    tip of a triangle there may be two of them, at a corner that peeps out from behind another
    shape more.
    """
    whole = 0
    for scene in scenes(60):
        picture, owner = draw(scene.background, scene.shapes)
        for index, drawn in zip(scene.objects, find_objects(scene, owner)):
            assert drawn.box == extent(drawn.mask)
            others = scene.shapes[:index] + scene.shapes[index + 1 :]
            without = draw(scene.background, others)[0]
            rim = np.subtract(drawn.box, extent((without != picture).any(axis=2)))
            assert (rim[:2] >= 0).all() and (rim[2:] <= 0).all()
            if drawn.mask.sum() == (coverage(scene.shapes[index], (160, 160))[1] >= 0.5).sum():
                assert np.abs(rim).max() <= 2
                whole += 1
    assert whole > 100


@pytest.mark.parametrize(
    "form, radius, box",
    [
        ("disk", 10, (40, 30, 60, 50)),
        # Half a side is 0.85 * 20 = 17.
        ("square", 20, (33, 23, 67, 57)),
        # Inradius 0.6 * 20 = 12, hence 24 from the center to a corner and 20.8 to the sides'
        # ends; the base is below the center.
        ("triangle", 20, (29, 16, 71, 52)),
    ],
)
def test_extent_of_the_forms(form, radius, box):
    _, owner = draw(np.zeros((80, 100, 3)), [shape(form, (50.0, 40.0), radius)])
    assert np.abs(np.subtract(extent(owner == 0), box)).max() <= 1


def test_area_of_the_forms():
    areas = {"disk": np.pi * 20**2, "square": 34**2, "triangle": 3 * 3**0.5 * 12**2}
    for form, area in areas.items():
        alpha = coverage(shape(form, (50.0, 40.0), 20, (0.6, 0.8)), (80, 100))[1]
        assert abs(alpha.sum() / area - 1) < 0.02


@pytest.mark.parametrize("form", sorted(set(FORMS) - set(OBJECT_FORMS)))
def test_no_near_miss_covers_what_an_object_of_its_box_would(form):
    """Best IoU of its pixels with any filled form, over sizes and directions, is under 0.8."""
    target = draw(np.zeros((100, 100, 3)), [shape(form, (50.0, 50.0), 30)])[1] == 0
    best = 0
    for name in OBJECT_FORMS:
        for radius in range(8, 44, 3):
            for x, y in ((50, 50), (50, 42), (42, 50), (58, 50), (42, 42)):
                for axis in ((1.0, 0.0), (0.8, 0.6), (0.6, 0.8), (0.0, 1.0)):
                    filled = draw(np.zeros((100, 100, 3)), [shape(name, (x, y), radius, axis)])[1]
                    union = ((filled == 0) | target).sum()
                    best = max(best, ((filled == 0) & target).sum() / union)
    assert best < (0.93 if form == "hexagon" else 0.8)


def test_later_shapes_cover_earlier_ones():
    below, above = shape("square", (30.0, 30.0), 20), shape("square", (40.0, 30.0), 20)
    above = above._replace(color=np.zeros(3))
    picture, owner = draw(np.full((60, 80, 3), 100.0), [below, above])
    assert owner[30, 15] == 0 and owner[30, 30] == 1 and owner[30, 70] == -1
    assert picture[30, 15].tolist() == [255] * 3
    assert picture[30, 30].tolist() == [0] * 3
    assert picture[30, 70].tolist() == [100] * 3


def test_what_the_set_is_made_of():
    drawn = [make_image(0, "train", index, 160)[1] for index in range(300)]
    objects = [one for image in drawn for one in image]
    counts = [len(image) for image in drawn]
    assert 0.04 < counts.count(0) / 300 < 0.13 and max(counts) == 5
    assert 0.03 < np.mean([one.difficult for one in objects]) < 0.1
    for name in SHAPES_CLASSES:
        assert 0.25 < np.mean([one.name == name for one in objects]) < 0.42
    # Areas as COCO has them: small below 32^2, large from 96^2.
    areas = [(x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), *_ in objects]
    assert 0.3 < np.mean(np.less(areas, 32**2)) < 0.6
    assert 0.02 < np.mean(np.greater_equal(areas, 96**2)) < 0.2
    assert min(one.box[2] - one.box[0] for one in objects) < 14


def test_objects_are_visible_unless_they_are_difficult():
    difficult = 0
    for scene in scenes(150):
        picture, owner = draw(scene.background, scene.shapes)
        for index, drawn in zip(scene.objects, find_objects(scene, owner)):
            alone = draw(scene.background, [scene.shapes[index]])[1] == 0
            visible = drawn.mask.sum() / alone.sum()
            difference = picture[drawn.mask] - scene.background[drawn.mask]
            contrast = np.linalg.norm(difference.mean(axis=0))
            assert drawn.difficult == (visible < 0.6 or index in scene.faint)
            assert visible > 0.15
            assert (contrast > 50) == (index not in scene.faint)
            difficult += drawn.difficult
    assert difficult > 10


def test_a_finished_folder_is_left_alone(folder):
    before = {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in content(folder)}
    assert make_shapes(folder, **SMALL) == folder
    assert before == {
        name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in content(folder)
    }


def test_another_spec_is_refused(folder):
    with pytest.raises(ValueError, match="shapes.json: .*'seed': 0.*'seed': 5.*delete"):
        make_shapes(folder, seed=5, **SMALL)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "precious").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        make_shapes(str(tmp_path), **SMALL)
    assert os.listdir(tmp_path) == ["precious"]


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return make_image(*args)

    monkeypatch.setattr(shapes, "make_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_shapes(str(tmp_path / "shapes"), **SMALL)
    assert os.listdir(tmp_path) == []


def test_several_at_once(tmp_path, folder):
    (tmp_path / "shapes").mkdir()  # an empty folder is as good as none
    with ThreadPoolExecutor(3) as executor:
        list(executor.map(lambda _: make_shapes(str(tmp_path / "shapes"), **SMALL), range(3)))
    assert os.listdir(tmp_path) == ["shapes"]
    assert content(tmp_path / "shapes") == content(folder)


@pytest.mark.parametrize(
    "arguments", [{"seed": -1}, {"num_train": 0}, {"num_test": 0}, {"size": 63}, {"seed": 0.5}]
)
def test_bad_arguments(tmp_path, arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} is .*must be an int"):
        make_shapes(str(tmp_path / "shapes"), **arguments)
    assert os.listdir(tmp_path) == []
