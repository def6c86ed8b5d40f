"""Lists of images without objects: what is read, which classes they have, and training on them."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from small_models import small_cfg
from small_training import CLASSES, write_images

from nrpn_d2.data import (
    DatasetError,
    VOCDatasetMapper,
    check_datasets,
    register_datasets,
    take_classes,
)
from nrpn_d2.data.backgrounds import read_backgrounds
from nrpn_d2.data.loader import build_train_loader

pytestmark = pytest.mark.usefixtures("restored_catalogs")


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path)
    return tmp_path / "JPEGImages"


def read(folder, text, on_error="error"):
    path = folder.parent / "list.txt"
    path.write_text(text)
    return read_backgrounds(str(path), str(folder), on_error)


def test_a_list(folder):
    first, second = read(folder, "im1.png\n\n  im0.png \n")
    assert first["file_name"].endswith("JPEGImages/im1.png") and first["annotations"] == []
    assert (second["width"], second["height"]) == (96, 64)


@pytest.mark.parametrize(
    "line, words",
    [
        ("../list.txt", "line 2: '../list.txt' leads out of"),
        ("/etc/passwd", "line 2: '/etc/passwd' leads out of"),
        ("im0.png", "line 2: 'im0.png' is listed twice"),
        ("none.png", "none.png: the image is missing"),
        ("notes.txt", "notes.txt: the image cannot be used"),
    ],
)
def test_bad_lines(folder, line, words):
    (folder / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError, match=words):
        read(folder, f"im0.png\n{line}")
    assert len(read(folder, f"im0.png\n{line}", "skip")) == 1


def test_beside_a_dataset_with_objects(folder):
    (folder / "list.txt").write_text("im4.png\n")
    own = [["empty", str(folder / "list.txt")], ["mine", str(folder.parent)]]
    options = {"DATASETS__OWN": own, "DATASETS__VOC_CLASSES": CLASSES, "SOLVER__IMS_PER_BATCH": 2}
    options |= {"DATASETS__TRAIN": ("empty", "mine_train"), "DATASETS__TEST": ("empty",)}
    for filters in (False, True):
        cfg = small_cfg(**options, DATALOADER__FILTER_EMPTY_ANNOTATIONS=filters)
        register_datasets(cfg)
        take_classes(cfg)
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == len(CLASSES)
        assert MetadataCatalog.get("empty").thing_classes == CLASSES
        if filters:
            with pytest.raises(DatasetError, match="FILTER_EMPTY_ANNOTATIONS is True.* 'empty'"):
                check_datasets(cfg)
        else:
            check_datasets(cfg)
            loader = build_train_loader(cfg, VOCDatasetMapper(cfg, is_train=True))
            assert len(next(iter(loader))) == 2
            images = [record["file_name"] for record in loader.some_records(10)]
            assert len(images) == 6
            assert images.count(DatasetCatalog.get("empty")[0]["file_name"]) == 2
