"""The names under which datasets are found."""

import os

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from voc_folder import write_voc_folder

from nrpn_d2 import add_nrpn_config
from nrpn_d2.data import DatasetError, catalog, make_shapes, register_datasets, register_voc

CAT = ("cat", (1, 1, 20, 15))
FLAT = ("cat", (5, 5, 5, 9))


@pytest.fixture(autouse=True)
def restored(restored_catalogs):
    pass


def config(**settings):
    cfg = get_cfg()
    add_nrpn_config(cfg)
    for key, value in settings.items():
        cfg.DATASETS[key] = value
    return cfg


def own_folder(tmp_path, objects=(CAT,)):
    splits = {"train": "a\n", "holdout": "a\n", "cat_train": "a 1\n"}
    return write_voc_folder(tmp_path, [{"id": "a", "objects": objects}], splits)


def test_voc_is_read_from_the_folder_of_detectron2(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    builtin = DatasetCatalog["voc_2007_trainval"]
    register_datasets()
    for year, splits in ((2007, "train val trainval test"), (2012, "train val trainval")):
        objects = [("dog", (1, 2, 20, 15)), ("tvmonitor", (1, 2, 20, 15), 1)]
        images = [{"id": f"{year}", "objects": objects}]
        root = write_voc_folder(
            tmp_path / f"VOC{year}", images, dict.fromkeys(splits.split(), f"{year}")
        )
        for split in splits.split():
            (record,) = DatasetCatalog.get(f"nrpn_voc_{year}_{split}")
            assert record["file_name"] == os.path.join(root, "JPEGImages", f"{year}.jpg")
            names = [CLASS_NAMES[note["category_id"]] for note in record["annotations"]]
            assert names == ["dog", "tvmonitor"]
            metadata = MetadataCatalog.get(f"nrpn_voc_{year}_{split}")
            assert metadata.as_dict() == {
                "name": f"nrpn_voc_{year}_{split}",
                "thing_classes": list(CLASS_NAMES),
                "dirname": root,
                "split": split,
                "year": year,
            }
    assert DatasetCatalog["voc_2007_trainval"] is builtin
    assert MetadataCatalog.get("voc_2007_trainval").evaluator_type == "pascal_voc"


def test_missing_voc_tells_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    register_datasets()
    with pytest.raises(DatasetError, match="nowhere/VOC2007.*set DETECTRON2_DATASETS.*VOC2007"):
        DatasetCatalog.get("nrpn_voc_2007_train")


def test_shapes_are_read_from_the_folder_beside_voc(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    made = []

    def make_small_shapes(root):
        made.append(make_shapes(root, num_train=3, num_test=2))
        return made[-1]

    monkeypatch.setattr(catalog, "make_shapes", make_small_shapes)
    register_datasets()
    assert made == []
    assert len(DatasetCatalog.get("shapes_train")) == 3
    assert len(DatasetCatalog.get("shapes_test")) == 2
    assert made == [str(tmp_path / "shapes")] * 2
    assert MetadataCatalog.get("shapes_test").thing_classes == ["disk", "square", "triangle"]


def test_own_folder_by_config_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_DATA", own_folder(tmp_path / "mine"))
    cfg = config(VOC_NAME="mine", VOC_ROOT="$MY_DATA", VOC_CLASSES=["cat", "dog"])
    register_datasets(cfg)
    register_datasets(cfg)
    assert {name for name in DatasetCatalog if name.startswith("mine")} == {
        "mine_train",
        "mine_holdout",
    }
    assert len(DatasetCatalog.get("mine_holdout")) == 1
    metadata = MetadataCatalog.get("mine_train")
    assert metadata.thing_classes == ["cat", "dog"]
    assert (metadata.dirname, metadata.split) == (str(tmp_path / "mine"), "train")


def test_on_error_of_the_config_reaches_every_reader(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    own_folder(tmp_path / "VOC2007", [CAT, FLAT])
    settings = {"VOC_NAME": "mine", "VOC_ROOT": str(tmp_path / "VOC2007"), "VOC_CLASSES": ["cat"]}
    names = ("mine_train", "nrpn_voc_2007_train")
    register_datasets(config(**settings))
    for name in names:
        with pytest.raises(DatasetError, match="no area"):
            DatasetCatalog.get(name)
    register_datasets(config(**settings, VOC_ON_ERROR="skip"))
    for name in names:
        assert len(DatasetCatalog.get(name)[0]["annotations"]) == 1


def test_registering_again_replaces(tmp_path):
    root = own_folder(tmp_path)
    register_voc("mine", root, "train", ["dog", "cat"], year=2012)
    register_voc("mine", root, "holdout", ["cat"])
    metadata = MetadataCatalog.get("mine")
    assert (metadata.thing_classes, metadata.split, metadata.year) == (["cat"], "holdout", 2007)
    assert DatasetCatalog.get("mine")[0]["annotations"][0]["category_id"] == 0


def test_register_voc_checks_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_DATA", own_folder(tmp_path))
    with pytest.raises(DatasetError, match="class names is empty"):
        register_voc("mine", "$MY_DATA", "train", [])
    register_voc("mine", "$MY_DATA", "train", ["cat"])
    assert MetadataCatalog.get("mine").dirname == str(tmp_path)


def test_a_name_of_other_code_is_not_taken(tmp_path):
    root = own_folder(tmp_path)
    for name in ("voc_2007_train", "foreign"):
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, list)
        load = DatasetCatalog[name]
        with pytest.raises(DatasetError, match=f"'{name}' is already registered.*VOC_NAME"):
            register_voc(name, root, "train", ["cat"])
        assert DatasetCatalog[name] is load


def test_own_folder_cannot_replace_the_embedded_dataset(tmp_path):
    cfg = config(VOC_NAME="shapes", VOC_ROOT=own_folder(tmp_path), VOC_CLASSES=["cat"])
    with pytest.raises(DatasetError, match="'shapes_train' is already"):
        register_datasets(cfg)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"VOC_NAME": ""}, "DATASETS.VOC_NAME is empty"),
        ({"VOC_ROOT": ""}, "DATASETS.VOC_ROOT is empty"),
        ({"VOC_CLASSES": []}, "DATASETS.VOC_CLASSES is empty"),
        ({"VOC_CLASSES": ["cat", "cat"]}, "'cat' is given more than once"),
        ({"VOC_CLASSES": ["cat", ""]}, "'' is empty"),
        ({"VOC_CLASSES": [" a"]}, "spaces"),
        ({"VOC_CLASSES": [1, 2]}, "list of strings"),
        ({"VOC_ROOT": "$NO_SUCH_VARIABLE/x"}, "NO_SUCH_VARIABLE/x: an environment variable"),
        ({"VOC_ROOT": "/no/such/folder"}, "there is no such folder"),
    ],
)
def test_bad_settings(tmp_path, change, message):
    good = {"VOC_NAME": "mine", "VOC_ROOT": own_folder(tmp_path), "VOC_CLASSES": ["cat"]}
    with pytest.raises(DatasetError, match=message):
        register_datasets(config(**{**good, **change}))


def test_own_folder_without_a_split(tmp_path):
    root = write_voc_folder(tmp_path, [{"id": "a"}], splits={"x": "a"})
    os.remove(os.path.join(root, "ImageSets", "Main", "x.txt"))
    with pytest.raises(DatasetError, match="no split in it"):
        register_datasets(config(VOC_NAME="mine", VOC_ROOT=root, VOC_CLASSES=["cat"]))
