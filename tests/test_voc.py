"""A folder in VOC layout -> records."""

import logging
import os

import numpy as np
import pytest
from detectron2.data import detection_utils
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nrpn_d2.data import VOCError, read_voc, voc
from nrpn_d2.data.voc_layout import list_splits, read_split
from voc_folder import write_voc_folder

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
    assert "3 images, 1 objects (0 difficult), 2 images without objects (1 without an XML" in (
        caplog.text
    )


def test_a_split_without_any_xml_is_reported(tmp_path, caplog):
    root = write_voc_folder(tmp_path, [{"id": "a", "xml": False}])
    assert len(read_voc(root, "train", CLASSES)) == 1
    assert "no image has a file in Annotations" in caplog.text


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".Jpg"])
def test_image_suffixes(tmp_path, suffix):
    root = write_voc_folder(tmp_path, [{"id": "a.b", "suffix": suffix, "objects": [CAT]}])
    (record,) = read_voc(root, "train", CLASSES)
    assert record["file_name"].endswith("a.b" + suffix)
    assert record["image_id"] == "a.b"


@pytest.mark.parametrize(
    "content, ids",
    [
        ("a", ["a"]),
        ("b\na\n", ["b", "a"]),
        ("\ufeffa\r\nb\r\n", ["a", "b"]),
        ("\n  a  \n\n\tb\n\n", ["a", "b"]),
        ("a  1\nb -1\n", ["a", "b"]),
        ("with space\na", ["with space", "a"]),
        ("nested/c 1", ["nested/c"]),
    ],
)
def test_split_formats(tmp_path, content, ids):
    images = [{"id": image_id} for image_id in ("a", "b", "with space", "nested/c")]
    root = write_voc_folder(tmp_path, images, splits={"train": content})
    assert [record["image_id"] for record in read_voc(root, "train", CLASSES)] == ids


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_stored_boxes_follow_the_exif_orientation(tmp_path, orientation, suffix):
    """A white block, annotated on the stored pixels, is where the box is after turning."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[5:13, 8:32] = 255
    turned = orientation >= 5
    # Orientations 2 to 4 keep the size: such boxes always refer to the turned image.
    objects = [("cat", (9, 6, 32, 13))] if turned or orientation == 1 else []
    root = write_voc_folder(
        tmp_path,
        [{"id": "a", "pixels": pixels, "objects": objects, "orientation": orientation}
         | {"suffix": suffix}],
    )  # fmt: skip
    (record,) = read_voc(root, "train", CLASSES)
    image = detection_utils.read_image(record["file_name"], "BGR")
    detection_utils.check_image_size(record, image)
    assert (record["width"], record["height"]) == ((40, 60) if turned else (60, 40))
    for annotation in record["annotations"]:
        rows, columns = np.nonzero(image[:, :, 0] > 127)
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # JPEG blurs the rim of the block.
        np.testing.assert_allclose(annotation["bbox"], extent, atol=0 if suffix == ".png" else 1)


def test_boxes_on_the_turned_image_stay(tmp_path):
    image = {
        "id": "a",
        "orientation": 6,
        "xml_size": (40, 60),
        "objects": [("cat", (1, 1, 40, 60))],
    }
    (record,) = read_voc(write_voc_folder(tmp_path, [image]), "train", CLASSES)
    assert record["annotations"][0]["bbox"] == [0, 0, 40, 60]


def test_exif_behind_the_pixels_of_a_png(tmp_path):
    """Pillow finds this orientation only after decoding; Detectron2 then turns the image."""
    root = write_voc_folder(tmp_path, [{"id": "a", "suffix": ".png", "orientation": 6}])
    path = os.path.join(root, "JPEGImages", "a.png")
    content = open(path, "rb").read()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    moved = content[:start] + content[stop:end] + content[start:stop] + content[end:]
    open(path, "wb").write(moved)
    (record,) = read_voc(root, "train", CLASSES)
    assert (record["width"], record["height"]) == (40, 60)
    detection_utils.check_image_size(record, detection_utils.read_image(path, "BGR"))


def save(root, name, picture):
    picture.save(os.path.join(root, "JPEGImages", name))


def write(root, name, content):
    with open(os.path.join(root, "JPEGImages", name), "wb") as file:
        file.write(content)


BAD_IMAGES = {
    "missing": (lambda root: None, "missing image"),
    "folder": (lambda root: os.mkdir(f"{root}/JPEGImages/bad.jpg"), "missing image"),
    "empty": (lambda root: write(root, "bad.jpg", b""), "unreadable image"),
    "text": (lambda root: write(root, "bad.png", b"no image"), "unreadable image"),
    "dead link": (lambda root: os.symlink("no", f"{root}/JPEGImages/bad.jpg"), "unreadable image"),
    "16 bit": (lambda root: save(root, "bad.png", Image.new("I;16", (60, 40))), "unreadable image"),
    "PostScript": (
        lambda root: write(root, "bad.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 40\n"),
        "unreadable image",
    ),
    "two": (
        lambda root: [
            save(root, name, Image.new("RGB", (60, 40))) for name in ("bad.jpg", "bad.png")
        ],
        "ambiguous image",
    ),
    "other size": (lambda root: save(root, "bad.jpg", Image.new("RGB", (60, 41))), "wrong size"),
    "turned size": (lambda root: save(root, "bad.jpg", Image.new("RGB", (40, 60))), "wrong size"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image(tmp_path, name):
    make, kind = BAD_IMAGES[name]
    images = [{"id": "good", "objects": [CAT]}, {"id": "bad", "objects": [CAT]}]
    root = write_voc_folder(tmp_path, images)
    os.remove(os.path.join(root, "JPEGImages", "bad.jpg"))
    make(root)
    with pytest.raises(VOCError, match=r"bad(\.|\{)") as error:
        read_voc(root, "train", CLASSES)
    assert error.value.kind == kind
    assert [record["image_id"] for record in read_voc(root, "train", CLASSES, "skip")] == ["good"]


def test_an_image_too_large_for_pillow(tmp_path, monkeypatch):
    root = write_voc_folder(tmp_path, [{"id": "a", "size": (60, 40)}])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(VOCError, match="a.jpg.*2400 pixels"):
        read_voc(root, "train", CLASSES)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_eight_bit_modes_become_three_channels(tmp_path, mode):
    suffix = ".jpg" if mode == "CMYK" else ".png"
    root = write_voc_folder(tmp_path, [{"id": "a", "suffix": suffix}])
    save(root, "a" + suffix, Image.new("RGB", (60, 40), (255, 255, 255)).convert(mode))
    (record,) = read_voc(root, "train", CLASSES)
    image = detection_utils.read_image(record["file_name"], "BGR")
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8 and (image > 250).all()


@pytest.mark.parametrize(
    "line, kind",
    [
        ("../a", "bad id"),
        ("x/../../a", "bad id"),
        ("/a", "bad id"),
        ("./a", "bad id"),
        ("..\\a", "bad id"),
        ("C:a", "bad id"),
        ("a\x00", "bad id"),
        ("a", "duplicate id"),
        ("nobody", "missing image"),
        ("a.jpg", "missing image"),
    ],
)
def test_bad_id(tmp_path, line, kind):
    root = write_voc_folder(tmp_path, [{"id": "a"}], splits={"train": f"a\n{line}\n"})
    with pytest.raises(VOCError) as error:
        read_voc(root, "train", CLASSES)
    assert error.value.kind == kind
    assert [record["image_id"] for record in read_voc(root, "train", CLASSES, "skip")] == ["a"]


def test_an_id_cannot_name_a_file_outside(tmp_path):
    root = write_voc_folder(tmp_path / "root", [{"id": "a"}], splits={"train": "a\n../../b"})
    Image.new("RGB", (60, 40)).save(tmp_path / "b.jpg")  # where the second id would lead
    assert [record["image_id"] for record in read_voc(root, "train", CLASSES, "skip")] == ["a"]


FAULTS = [
    ("cat", (10, 10, 10, 20)),
    ("cat", (10, 10, 99, 20)),
    ("bird", (1, 1, 9, 9)),
    ("cat", ("nan", 1, 9, 9)),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_names_file_object_and_remedy(tmp_path, fault):
    root = write_voc_folder(tmp_path, [{"id": "a", "objects": [CAT, fault]}])
    pattern = rf"a\.xml: object 1 \('{fault[0]}'\): .*(redraw|orrect|make)"
    with pytest.raises(VOCError, match=pattern):
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


def test_nothing_left(tmp_path):
    root = write_voc_folder(tmp_path, [{"id": "a", "xml": "<annotation>"}])
    with pytest.raises(VOCError, match="no usable image"):
        read_voc(root, "train", CLASSES, "skip")


@pytest.mark.parametrize("part", ["ImageSets/Main", "JPEGImages", "Annotations"])
def test_folder_that_is_not_in_voc_layout(tmp_path, part):
    root = write_voc_folder(tmp_path, [{"id": "a"}])
    os.rename(os.path.join(root, part), os.path.join(root, "elsewhere"))
    with pytest.raises(VOCError, match=f"no folder {part}"):
        read_voc(root, "train", CLASSES)


def test_bad_arguments(tmp_path):
    root = write_voc_folder(tmp_path, [{"id": "a"}], splits={"empty": "\n \n", "bad": b"\xff\xfe"})
    for arguments, message in [
        ((root + "/no", "train", CLASSES), "no such folder"),
        ((root, "train", CLASSES), "train.txt: the split file cannot be read"),
        ((root, "empty", CLASSES), "lists no image"),
        ((root, "bad", CLASSES), "not UTF-8"),
        ((root, "empty", []), "class names is empty"),
        ((root, "empty", CLASSES, "ignore"), "VOC_ON_ERROR.*'ignore'"),
    ]:
        with pytest.raises(VOCError, match=message):
            read_voc(*arguments)


def test_list_splits_leaves_out_the_lists_of_a_class(tmp_path):
    names = ("train", "val", "cat_train", "cat_val", "cat_only", "dog_train", "bird_train")
    root = write_voc_folder(tmp_path, [], splits={name: "a" for name in names})
    assert list_splits(root, CLASSES) == ["bird_train", "cat_only", "train", "val"]


@pytest.fixture
def two_processes(monkeypatch):
    """Reads every set with two processes; XML files that are read in this one fail."""
    parent, load_annotation = os.getpid(), voc.load_annotation

    def load(path):
        assert os.getpid() != parent
        return load_annotation(path)

    monkeypatch.setattr(voc, "_PARALLEL_FROM", 0)
    monkeypatch.setattr(voc, "_free_processes", lambda: 2)
    monkeypatch.setattr(voc, "load_annotation", load)


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
    with pytest.raises(VOCError, match=r"/1\.xml: object 1"):
        read_voc(large_folder, "train", CLASSES)


LINES = st.lists(
    st.one_of(
        st.sampled_from(["a", "a 1", "b", "..", "/", "a\\b", "\ufeff", "\x00", "\x1c", "C:"]),
        st.text(max_size=6),
    ),
    max_size=6,
).map("\n".join)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=60), LINES))
def test_no_split_file_raises_anything_but_the_documented_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(
        content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    )
    try:
        ids, faults = read_split(str(path), {"a": ["a.jpg"]})
    except VOCError as error:
        assert str(path) in str(error)
        return
    assert ids or faults
    assert len(set(ids)) == len(ids)
    folder = os.path.normpath("/data/JPEGImages")
    for image_id in ids:
        assert os.path.normpath(os.path.join(folder, image_id)).startswith(folder + os.sep)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n"]))
def test_no_image_file_raises_anything_but_the_documented_error(tmp_path_factory, tail, magic):
    folder = tmp_path_factory.getbasetemp() / "fuzz_images"
    root = write_voc_folder(folder, [{"id": "good"}], splits={"train": "good\nbad"})
    write(root, "bad.jpg", magic + tail)
    assert [record["image_id"] for record in read_voc(root, "train", CLASSES, "skip")][0] == "good"


def test_bccd_has_two_degenerate_boxes_and_no_other_fault(bccd_root, caplog):
    classes = ["RBC", "WBC", "Platelets"]
    with pytest.raises(VOCError, match="BloodImage_00338.xml: object 12 .'RBC'"):
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
