"""Decisions on missing labels: what they add to each format, and what is refused."""

import json
import os
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from exports import to_coco, to_yolo
from voc_folder import write_voc_folder

from nrpn_d2.data import read_voc
from nrpn_d2.data.corrections import read_decisions, write_corrected
from nrpn_d2.data.faults import DatasetError
from nrpn_d2.engine.defaults import build_cfg

NAMES = ["cat", "<b>"]  # a class's name is text wherever it is written
IMAGES = [{"id": "a", "objects": [("cat", (3, 3, 30, 30))]}, {"id": "sub/b & b", "xml": False}]
BOX = [10.2, 5.0, 40.4, 35.0]
NEW = [
    {"image_id": 0, "box": BOX, "decision": "object", "class": "<b>"},
    {"image_id": 1, "box": [-0.5, 5, 8, 20], "decision": "object", "class": "cat"},
    {"image_id": 1, "box": [30, 5, 38, 20], "decision": "background"},
]
IGNORE = {"image_id": 1, "box": [40, 5, 50, 20], "decision": "ignore"}


@pytest.fixture(params=["voc", "coco", "yolo"])
def source(request, tmp_path, restored_catalogs):
    """(format, dataset, DATASETS.OWN) of two images, of which the second has no label."""
    root = write_voc_folder(tmp_path / "voc", IMAGES)
    own, name = [root], "own_train"
    records = read_voc(root, "train", NAMES)
    (tmp_path / "other").mkdir()
    if request.param == "coco":
        own, name = to_coco(records, NAMES, tmp_path / "other"), "own"
    elif request.param == "yolo":
        own = to_yolo(records, NAMES, tmp_path / "other")
    register(own)
    return request.param, name, own


def register(own):
    build_cfg("", ["DATASETS.OWN", str([["own", *own]]), "DATASETS.VOC_CLASSES", str(NAMES)])


def decide(tmp_path, name, entries, **changes):
    """A file of decisions; their image ids are numbers of images."""
    ids = [record["image_id"] for record in DatasetCatalog.get(name)]
    entries = [{**e, "image_id": ids[e["image_id"]]} for e in entries]
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"dataset": name, "decisions": entries, **changes}))
    return str(path)


def files(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_objects_are_added_to_a_copy(source, tmp_path):
    kind, name, own = source
    before, records = files(tmp_path), DatasetCatalog.get(name)
    entries = NEW + [IGNORE] * (kind != "yolo")
    output = str(tmp_path / "new" / ("new.json" if kind == "coco" else "corrected"))
    write_corrected(name, read_decisions(decide(tmp_path, name, entries), name), output)
    (tmp_path / "decisions.json").unlink()
    assert {p: before[p] for p in before} == {p: p.read_bytes() for p in before}
    register({"voc": [output], "coco": [output, own[-1]], "yolo": [f"{output}/data.yaml"]}[kind])
    corrected = DatasetCatalog.get(name)
    assert [r["image_id"] for r in corrected] == [r["image_id"] for r in records]
    old, first = corrected[0]["annotations"]
    assert old == records[0]["annotations"][0]
    added = corrected[1]["annotations"]
    assert [a["category_id"] for a in (first, *added)] == [1, 0, 0][: 1 + len(added)]
    assert [a["difficult"] for a in added] == [0, 1][: len(added)] and len(added) == len(
        entries
    ) - 2
    exact = 0.5 if kind == "voc" else 0.01  # VOC: whole pixels
    assert first["bbox"] == pytest.approx(BOX, abs=exact)
    assert added[0]["bbox"] == pytest.approx([0, 5, 8, 20], abs=exact)


GOOD = NEW[0]
HOSTILE = {
    "no image": ({"image_id": "../a"}, "image_id '../a' is that of no image"),
    "unhashable image": ({"image_id": []}, "image_id .* no image"),
    "outside": ({"box": [10, 5, 90, 35]}, "leaves the image of 60 x 40"),
    "swapped": ({"box": [40, 5, 10, 35]}, "negative width"),
    "no pixel": ({"box": [10, 5, 10.2, 35]}, "less than one pixel"),
    "infinite": ({"box": [0, 0, 1e999, 9]}, "in pixels"),
    "no numbers": ({"box": ["0", 0, True, 9]}, "in pixels"),
    "box missing": ({"box": None}, "in pixels"),
    "class": ({"class": "cta"}, "class 'cta' is none of .*did you mean 'cat'"),
    "no class": ({"class": None}, "class None is none of"),
    "class of another type": ({"class": ["cat"]}, "is none of"),
    "decision": ({"decision": "delete"}, "decision is 'delete'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bad_decision_is_named(tmp_path, restored_catalogs, case):
    changes, message = HOSTILE[case]
    register([write_voc_folder(tmp_path / "voc", IMAGES)])
    path = decide(tmp_path, "own_train", [GOOD])
    content = json.loads(Path(path).read_text())
    content["decisions"].append({**content["decisions"][0], **changes})
    Path(path).write_text(json.dumps(content).replace("Infinity", "1e999"))
    with pytest.raises(DatasetError, match=rf"decisions.json: decisions\[1\]: .*{message}"):
        read_decisions(path, "own_train")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"{", "invalid JSON"),
        (b"[]", "it has no list 'decisions'"),
        (b'{"dataset": "own_test", "decisions": []}', "its dataset is 'own_test', not 'own_train'"),
        (b'{"dataset": "own_train", "decisions": [7]}', r"decisions\[0\]: 7 is no decision"),
    ],
)
def test_a_bad_file_is_named(tmp_path, restored_catalogs, content, message):
    register([write_voc_folder(tmp_path / "voc", IMAGES)])
    (tmp_path / "decisions.json").write_bytes(content)
    with pytest.raises(DatasetError, match=f"decisions.json: {message}"):
        read_decisions(str(tmp_path / "decisions.json"), "own_train")


def test_what_is_background_may_be_of_any_size(tmp_path, restored_catalogs):
    register([write_voc_folder(tmp_path / "voc", IMAGES)])
    sliver = {"image_id": 0, "box": [59.4, 4, 60, 30], "decision": "background"}
    assert len(read_decisions(decide(tmp_path, "own_train", [sliver, GOOD]), "own_train")) == 1


def test_one_box_twice_is_refused(tmp_path, restored_catalogs):
    register([write_voc_folder(tmp_path / "voc", IMAGES)])
    with pytest.raises(DatasetError, match=r"decisions\[1\]: the same box as .*decisions\[0\]"):
        read_decisions(decide(tmp_path, "own_train", [GOOD, GOOD]), "own_train")


def test_where_nothing_is_written(source, tmp_path):
    kind, name, own = source
    additions = read_decisions(decide(tmp_path, name, NEW), name)
    before = files(tmp_path)
    root = own[0] if kind == "voc" else os.path.dirname(own[0])
    places = {own[0]: "exists already", root: "exists already"}
    wrong = {"coco": "must end in .json"}.get(kind, "lies in the dataset's folder")
    places[os.path.join(root, "new")] = wrong
    for output, message in places.items():
        with pytest.raises(DatasetError, match=message):
            write_corrected(name, additions, output)
    assert files(tmp_path) == before


def test_what_yolo_cannot_say(tmp_path, restored_catalogs):
    (tmp_path / "yolo").mkdir()
    records = read_voc(write_voc_folder(tmp_path / "voc", IMAGES), "train", NAMES)
    register(to_yolo(records, NAMES, tmp_path / "yolo"))
    additions = read_decisions(decide(tmp_path, "own_train", [IGNORE]), "own_train")
    with pytest.raises(DatasetError, match=r"decisions\[0\]: 'ignore' cannot be written: YOLO"):
        write_corrected("own_train", additions, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".audit*"))


def test_links_and_absolute_paths_in_a_copy(tmp_path, monkeypatch, restored_catalogs):
    """Links to folders are followed; those to a folder above or to nowhere stop nothing.

    What is hidden or no dataset's, such as a checkpoint, takes no space.
    """
    monkeypatch.setattr("nrpn_d2.data.corrections._MAX_BYTES", 10_000)
    records = read_voc(write_voc_folder(tmp_path / "voc", IMAGES), "train", NAMES)
    root, labels, more = (tmp_path / name for name in ("yolo", "labels", "more"))
    root.mkdir()
    (path,) = to_yolo(records, NAMES, root)
    (root / "labels" / "train").rename(labels)
    more.mkdir()
    (root / "images" / "train" / "a.jpg").rename(more / "a.jpg")
    for link, target in {
        "labels/train": labels,
        "images/train/more": "../../../more",
        "images/up": "..",
        "old": "/nowhere/at/all",
        "device": "/dev/null",
        "labels/more.txt": labels / "none.txt",
    }.items():
        (root / link).symlink_to(target)
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text("ref")
    (root / "model.pth").write_bytes(bytes(10_001))
    (root / "list.txt").write_text(f"{root}/images/train/more/a.jpg\n./images/train/b & b.jpg")
    for places in ("images", "list.txt"):
        Path(path).write_text(f"train: {places}\nnames: {NAMES}\n")
        register([path])
        read = DatasetCatalog.get("own_train")
        ids = [record["image_id"] for record in read]
        assert sorted(ids) == ["images/train/b & b", "images/train/more/a"]
        additions = read_decisions(decide(tmp_path, "own_train", NEW[:2]), "own_train")
        before, output = files(tmp_path), tmp_path / f"new_{places}"
        for folder in (root, root / "images", more, labels):
            folder.chmod(0o555)
        write_corrected("own_train", additions, str(output))
        assert before.items() <= files(tmp_path).items()
        assert (output / "model.pth").is_symlink()
        assert not {"old", "device", ".git"} & {path.name for path in output.iterdir()}
        assert all(folder.stat().st_mode & 0o200 for folder in output.rglob("*/"))
        register([f"{output}/data.yaml"])
        copied = DatasetCatalog.get("own_train")
        assert [record["image_id"] for record in copied] == ids
        counts = [len(a["annotations"]) - len(b["annotations"]) for a, b in zip(copied, read)]
        assert counts == [1, 1]
        assert all(record["file_name"].startswith(str(output)) for record in copied)


def test_a_coco_file_with_faults_is_corrected(tmp_path, restored_catalogs):
    """DATASETS.ON_ERROR "skip" reads it, too."""
    records = read_voc(write_voc_folder(tmp_path / "voc", IMAGES), "train", NAMES)
    (tmp_path / "other").mkdir()
    path, folder = to_coco(records, NAMES, tmp_path / "other")
    content = json.loads(Path(path).read_text())
    content["images"] += [{"file_name": "c.jpg"}, 7, {**content["images"][0], "width": 9}]
    content["annotations"].append(None)
    Path(path).write_text(json.dumps(content))
    build_cfg("", ["DATASETS.OWN", str([["own", path, folder]]), "DATASETS.ON_ERROR", "skip"])
    write_corrected("own", read_decisions(decide(tmp_path, "own", [GOOD]), "own"), f"{path}.json")
    assert len(json.loads(Path(f"{path}.json").read_text())["annotations"]) == 3


def test_labels_of_stored_pixels_are_refused(tmp_path, restored_catalogs):
    turned = {"id": "a", "orientation": 6, "objects": [("cat", (3, 3, 30, 30))]}
    register([write_voc_folder(tmp_path / "voc", [turned])])
    entry = {**GOOD, "box": [5, 5, 20, 20]}
    additions = read_decisions(decide(tmp_path, "own_train", [entry]), "own_train")
    with pytest.raises(DatasetError, match="a.jpg: EXIF turns the image"):
        write_corrected("own_train", additions, str(tmp_path / "new"))


def test_a_dataset_of_other_code_is_refused(tmp_path, restored_catalogs):
    register([write_voc_folder(tmp_path / "voc", IMAGES)])
    DatasetCatalog.register("theirs", lambda: DatasetCatalog.get("own_train"))
    with pytest.raises(DatasetError, match="'theirs' was registered by other code"):
        write_corrected("theirs", [], str(tmp_path / "new"))
