"""Where YOLO's files are, and what their fractions mean."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from exports import to_yolo
from PIL import Image
from small_models import small_cfg
from small_training import CLASSES, write_images

from nrpn_d2.data import DatasetError, read_voc, register_datasets
from nrpn_d2.data.reading import walk


@pytest.fixture(autouse=True)
def restored(restored_catalogs):
    pass


def registered(*own, **options):
    cfg = small_cfg(DATASETS__OWN=[list(entry) for entry in own], **options)
    register_datasets(cfg)
    return cfg


def test_polygons_of_yolo(tmp_path):
    records = read_voc(write_images(tmp_path / "voc"), "train", CLASSES)
    (path,) = to_yolo(records[:1], CLASSES, tmp_path / "yolo")
    label = tmp_path / "yolo/labels/train/im0.txt"
    label.write_text("2 0.25 0.5 0.75 0.5 0.5 0.125\n")
    registered(["mine", path])
    (record,) = DatasetCatalog.get("mine_train")
    width, height = record["width"], record["height"]
    (note,) = record["annotations"]
    assert note["bbox"] == [width / 4, height / 8, width * 3 / 4, height / 2]
    corners = [(0.25, 0.5), (0.75, 0.5), (0.5, 0.125)]
    assert note["segmentation"] == [[c for x, y in corners for c in (x * width, y * height)]]


def image(path, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


LAYOUTS = {  # data.yaml, images and the labels of one of them
    "images/train": ("train: images/train", "images/train/a.jpg", "labels/train/a.txt"),
    "train/images": ("train: train/images", "train/images/a.jpg", "train/labels/a.txt"),
    "../train/images": ("train: ../train/images", "train/images/a.jpg", "train/labels/a.txt"),
    "side by side": ("train: .", "a.jpg", "a.txt"),
    "list": ("train: train.txt", "images/a.jpg", "labels/a.txt"),
    "list in a folder": ("train: [lists/train.txt]", "lists/images/a.jpg", "lists/labels/a.txt"),
    "path": ("path: data\ntrain: images", "data/images/a.jpg", "data/labels/a.txt"),
    "names by number": ("train: images\nval:", "images/b/a.PNG", "labels/b/a.txt"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_folders_of_yolo(tmp_path, name):
    lines, file, label = LAYOUTS[name]
    names = "{1: dog, 0: cat}" if name == "names by number" else "[cat, dog]"
    (tmp_path / "data.yaml").write_text(f"{lines}\nnames: {names}\n")
    image(tmp_path / file)
    for text in (tmp_path / "train.txt", tmp_path / "lists" / "train.txt"):
        if text.parent.is_dir():
            text.write_text("./images/a.jpg\n\n")
    (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label).write_text("1 0.5 0.5 0.5 0.5\n")
    registered(["mine", str(tmp_path / "data.yaml")])
    (record,) = DatasetCatalog.get("mine_train")
    assert record["file_name"] == str(tmp_path / file)
    (note,) = record["annotations"]
    assert note["bbox"] == [15, 10, 45, 30] and note["category_id"] == 1
    assert MetadataCatalog.get("mine_train").thing_classes == ["cat", "dog"]


def test_an_absolute_path_outside_is_not_one_inside(tmp_path):
    """Although there is a folder of that name."""
    for folder in ("data", "."):
        image(tmp_path / folder / "images" / "a.jpg")
    (tmp_path / "data" / "data.yaml").write_text(f"train: {tmp_path}/images\nnames: [cat]\n")
    registered(["mine", str(tmp_path / "data" / "data.yaml")])
    with pytest.raises(DatasetError, match=f"/images' leads out of {tmp_path}/data"):
        DatasetCatalog.get("mine_train")


@pytest.mark.parametrize("digits", [6, 5])
def test_rounding_of_yolo_gives_whole_pixels_back(tmp_path, digits):
    """Up to 6,000 pixels with six digits, 600 with five."""
    size = (6000, 3001) if digits == 6 else (600, 301)
    image(tmp_path / "a.png", size)
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat]\n")
    rng = np.random.default_rng(0)
    corners = np.sort([rng.choice(side, (200, 2)) for side in size], axis=2)
    boxes = [[x0, y0, x1 + 1, y1 + 1] for (x0, x1), (y0, y1) in zip(*corners.tolist())]
    lines = []
    for x0, y0, x1, y1 in boxes:
        values = (x0 + x1) / 2 / size[0], (y0 + y1) / 2 / size[1]
        values += (x1 - x0) / size[0], (y1 - y0) / size[1]
        lines.append("0 " + " ".join(f"{value:.{digits}f}" for value in values))
    (tmp_path / "a.txt").write_text("\n".join(lines))
    registered(["mine", str(tmp_path / "data.yaml")])
    (record,) = DatasetCatalog.get("mine_train")
    assert [note["bbox"] for note in record["annotations"]] == boxes


def test_links_to_links_have_an_end(tmp_path):
    """30 folders whose two links lead to the next one have a billion names."""
    for level in range(31):
        (tmp_path / str(level)).mkdir()
    for level in range(30):
        for link in ("a", "b"):
            (tmp_path / str(level) / link).symlink_to(tmp_path / str(level + 1))
    with pytest.raises(DatasetError, match="links lead to .* by more than 16 names; remove some"):
        list(walk(str(tmp_path / "0")))
