"""A folder in VOC layout -> records."""

import logging
import os

import pytest
from detectron2.structures import BoxMode
from voc_folder import write_voc_folder

from nrpn_d2.data import DatasetError, read_voc
from nrpn_d2.data import reading as voc
from nrpn_d2.data.voc import reader
from nrpn_d2.utils import parallel

CLASSES = ["cat", "dog"]
CAT = ("cat", (11, 6, 20, 15))
DOG = ("dog", (1, 1, 60, 40), 1)


def test_record(tmp_path):
    root = write_voc_folder(tmp_path, [{"id": "a", "objects": [CAT, DOG]}])
    (record,) = read_voc(root, "train", CLASSES)
    box_mode = BoxMode.XYXY_ABS
    assert record == {
        "file_name": os.path.join(root, "JPEGImages", "a.jpg"),
        "image_id": "a",
        "height": 40,
        "width": 60,
        "annotations": [
            {"bbox": [10, 5, 20, 15], "bbox_mode": box_mode, "category_id": 0, "difficult": 0},
            {"bbox": [0, 0, 60, 40], "bbox_mode": box_mode, "category_id": 1, "difficult": 1},
        ],
    }
    assert all(type(edge) is float for edge in record["annotations"][0]["bbox"])


def test_background_images_are_counted(tmp_path, caplog):
    images = [{"id": "a", "objects": [CAT]}, {"id": "b"}, {"id": "c", "xml": False}]
    root = write_voc_folder(tmp_path, images)
    with caplog.at_level(logging.INFO, logger=voc.__name__):
        records = read_voc(root, "train", CLASSES)
    assert [len(record["annotations"]) for record in records] == [1, 0, 0]
    assert (
        "3 images, 1 objects (0 difficult), 2 images without objects (1 without a label file"
        in (caplog.text)
    )


def test_a_split_without_any_xml_is_reported(tmp_path, caplog):
    root = write_voc_folder(tmp_path, [{"id": "a", "xml": False}])
    assert len(read_voc(root, "train", CLASSES)) == 1
    assert "no image has a label file" in caplog.text


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".Jpg"])
def test_image_suffixes(tmp_path, suffix):
    root = write_voc_folder(tmp_path, [{"id": "a.b", "suffix": suffix, "objects": [CAT]}])
    (record,) = read_voc(root, "train", CLASSES)
    assert record["file_name"].endswith("a.b" + suffix)
    assert record["image_id"] == "a.b"


FAULTS = [
    ("cat", (10, 10, 10, 20)),
    ("cat", (10, 10, 99, 20)),
    ("bird", (1, 1, 9, 9)),
    ("cat", ("nan", 1, 9, 9)),
]


def test_fault_names_file_object_and_remedy(tmp_path):
    root = write_voc_folder(tmp_path, [{"id": "a", "objects": [CAT, FAULTS[0]]}])
    with pytest.raises(DatasetError, match=r"a\.xml: object 1 \('cat'\): .*remove or redraw"):
        read_voc(root, "train", CLASSES)


def test_skip_drops_exactly_the_faults_and_counts_them(tmp_path, caplog):
    images = [
        {"id": "a", "objects": [FAULTS[0], CAT, *FAULTS[1:], DOG, FAULTS[0]]},
        {"id": "b", "xml": "<annotation>"},
        {"id": "c", "objects": FAULTS[:1]},
        {"id": "d"},
    ]
    root = write_voc_folder(tmp_path, images, splits={"train": "a\nb\nc\nd\na\n../e\nf\n"})
    with caplog.at_level(logging.INFO, logger=voc.__name__):
        records = read_voc(root, "train", CLASSES, "skip")
    assert [record["image_id"] for record in records] == ["a", "c", "d"]
    assert [note["category_id"] for note in records[0]["annotations"]] == [0, 1]
    assert records[1]["annotations"] == []
    table = {}
    for line in caplog.messages[-1].splitlines()[3:]:
        kind, count = (cell.strip() for cell in line.strip("|").split("|"))
        table[kind] = int(count)
    assert table == {
        "degenerate box": 3,
        "box outside the image": 1,
        "unknown class": 1,
        "bad number": 1,
        "broken XML": 1,
        "duplicate id": 1,
        "bad id": 1,
        "missing image": 1,
    }
    assert "dropped 10 objects or images" in caplog.messages[-1]
    dropped = [message for message in caplog.messages if message.startswith("Dropped: ")]
    assert len(dropped) == 10 and "line 5: id 'a' is already on line 1" in dropped[0]


def test_a_clean_set_gives_no_warning(tmp_path, caplog):
    root = write_voc_folder(tmp_path, [{"id": "a", "objects": [CAT]}])
    with caplog.at_level(logging.INFO, logger=voc.__name__):
        read_voc(root, "train", CLASSES, "skip")
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_nothing_left(tmp_path):
    root = write_voc_folder(tmp_path, [{"id": "a", "xml": "<annotation>"}])
    with pytest.raises(DatasetError, match="no usable image"):
        read_voc(root, "train", CLASSES, "skip")


@pytest.fixture
def two_processes(monkeypatch):
    """Reads every set with two processes; XML files that are read in this one fail."""
    parent, load_annotation = os.getpid(), reader.load_annotation

    def load(path):
        assert os.getpid() != parent
        return load_annotation(path)

    monkeypatch.setattr(voc, "_LARGE", 0)
    monkeypatch.setattr(parallel, "free_processes", lambda: 2)
    monkeypatch.setattr(reader, "load_annotation", load)


@pytest.fixture
def large_folder(tmp_path):
    images = [{"id": f"{i}", "objects": [CAT] * (i % 3) + FAULTS[: i % 2]} for i in range(300)]
    return write_voc_folder(tmp_path, images)


def test_several_processes_give_the_same_in_the_same_order(large_folder, request):
    alone = read_voc(large_folder, "train", CLASSES, "skip")
    request.getfixturevalue("two_processes")
    assert read_voc(large_folder, "train", CLASSES, "skip") == alone
    assert [record["image_id"] for record in alone] == [f"{i}" for i in range(300)]


def test_several_processes_raise_the_first_fault(large_folder, two_processes):
    with pytest.raises(DatasetError, match=r"/1\.xml: object 1"):
        read_voc(large_folder, "train", CLASSES)


def test_only_the_first_faults_are_written_out(large_folder, caplog):
    read_voc(large_folder, "train", CLASSES, "skip")
    assert sum(message.startswith("Dropped: ") for message in caplog.messages) == 10
    assert caplog.messages[-2] == "... and 140 more"


@pytest.mark.parametrize("large, bar", [(1000, False), (300, True)])
def test_one_process(large_folder, monkeypatch, capsys, large, bar):
    """Small sets are read by this process; large ones, too, where it has no others, with a bar."""
    monkeypatch.setattr(voc, "_LARGE", large)
    monkeypatch.setattr(parallel, "free_processes", lambda: 1 if bar else pytest.fail("asked"))
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("started"))
    assert len(read_voc(large_folder, "train", CLASSES, "skip")) == 300
    assert ("Reading annotations: 100%" in capsys.readouterr().err) == bar


def test_bccd_has_two_degenerate_boxes_and_no_other_fault(bccd_root, caplog):
    classes = ["RBC", "WBC", "Platelets"]
    with pytest.raises(DatasetError, match="BloodImage_00338.xml: object 12 .'RBC'"):
        read_voc(bccd_root, "trainval", classes)
    records = read_voc(bccd_root, "trainval", classes, "skip")
    dropped = [message for message in caplog.messages if message.startswith("Dropped")]
    records += read_voc(bccd_root, "test", classes)
    assert [name for name in ("00338", "00343") for text in dropped if name in text] == [
        "00338",
        "00343",
    ]
    assert len(dropped) == 2
    assert len(records) == 364
    assert sum(len(record["annotations"]) for record in records) == 4888 - 2
