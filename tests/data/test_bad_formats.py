"""Bad COCO and YOLO input: each row has its error, and what "skip" drops and counts.

A row is a change of a good dataset of two images, the error (a regular expression; the file is
checked, too), and what "skip" leaves: objects on images "a" and "b", None for a dropped image; or
FATAL if it raises the same error.
"""

import os
import re

import pytest
from export_folder import LABEL, YAML, ExportFolder
from hostile_files import DEEP_JSON, hostile_yaml, yaml_bomb
from PIL import Image

from nrpn_d2.data import DatasetError

FATAL = "fatal"


def content(**changes):
    def change(folder):
        folder.content |= changes

    return change


def part(key, index=0, **changes):
    """Changes of an element of a list of the COCO file; None removes a key."""

    def change(folder):
        element = folder.content[key][index] = {**folder.content[key][index], **changes}
        for name in [name for name, value in changes.items() if value is None]:
            del element[name]

    return change


def obj(**changes):
    return part("annotations", **changes)


def img(**changes):
    return part("images", **changes)


def rle(counts, size=(40, 60)):
    return obj(segmentation={"counts": counts, "size": list(size)})


def raw(text):
    def change(folder):
        folder.content = text

    return change


def bad_image(folder):
    (folder.root / "images" / "a.jpg").write_bytes(b"no image")


def append(key, value):
    return lambda folder: folder.content[key].append(value)


def yaml(text):
    return lambda folder: folder.yaml.write_text(text)


def line(text):
    """Another first line of the label of a."""
    return lambda folder: folder.label(f"{text}\n{LABEL}\n")


def listed(text):
    def change(folder):
        folder.yaml.write_text(YAML.replace("images", "list.txt"))
        (folder.root / "list.txt").write_text(text)

    return change


def label_is_folder(folder):
    os.remove(folder.root / "labels" / "a.txt")
    os.mkdir(folder.root / "labels" / "a.txt")


def second_image(folder):
    Image.new("RGB", (60, 40)).save(folder.root / "images" / "a.png")


POLYGON = [1, 1, 9, 1, 9, 9]
ANNOTATION = "annotations.0. of a.jpg: "
COCO = {
    "empty": (raw(""), "invalid JSON", FATAL),
    "no JSON": (raw("{'images': []}"), "invalid JSON", FATAL),
    "not UTF-8": (raw(b"\xff\xfe{}"), "invalid JSON", FATAL),
    "deep": (raw(DEEP_JSON), "invalid JSON .*recursion", FATAL),
    "NaN": (raw('{"images": [NaN]}'), "NaN is not JSON", FATAL),
    "long number": (raw('{"images": [' + "1" * 10_000 + "]}"), "invalid JSON", FATAL),
    "predictions": (raw("[]"), "not COCO's ground truth.*predictions", FATAL),
    "no annotations": (lambda f: f.content.pop("annotations"), "has no list 'annotations'", FATAL),
    "images are no list": (content(images={}), "has no list 'images'", FATAL),
    "no image": (content(images=[]), "'images' is empty", FATAL),
    "no category": (content(categories=[]), "class names is empty", FATAL),
    "category without id": (part("categories", id=None), r"categories.0. has no whole", FATAL),
    "category is true": (part("categories", id=True), r"categories.0. has no whole", FATAL),
    "same category ids": (part("categories", id=9), "two categories have the same id", FATAL),
    "same names": (part("categories", name="dog"), "'dog' is given more than once", FATAL),
    "name is a number": (part("categories", name=3), "list of strings", FATAL),
    "image without id": (img(id=None), r"images.0.: it has no id", (None, 1)),
    "image id is a list": (img(id=[1]), r"images.0.: it has no id", (None, 1)),
    "image is text": (append("images", "c.jpg"), r"images.2.: it has no id", (2, 1)),
    "same image ids": (img(id=2), r"images.1.: images.0. has the id 2, too; number", (1, None)),
    "same file": (
        append("images", {"id": 3, "file_name": "a.jpg"}),
        r"images.2.: images.0. has the file_name 'a.jpg', too; delete one",
        (2, 1),
    ),
    "absolute": (img(file_name="/etc/a.jpg"), "'/etc/a.jpg' is not the name of a", (None, 1)),
    "leads out": (img(file_name="../images/a.jpg"), "is not the name of a file", (None, 1)),
    "backslash": (img(file_name="x\\a.jpg"), "is not the name of a file.*with '/'", (None, 1)),
    "no file name": (img(file_name=None), "file_name None is not the name", (None, 1)),
    "missing image": (img(file_name="c.jpg"), "c.jpg: the image is missing.*third", (None, 1)),
    "unreadable image": (bad_image, "a.jpg: the image cannot be used", (None, 1)),
    "wrong size": (img(width=61), "'a.jpg' is 61 x 40 here, but.*60 x 40", (None, 1)),
    "size is text": (img(width="60"), "is '60' x 40 here", (None, 1)),
    "annotation is text": (
        append("annotations", "x"),
        r"annotations.3.: its image_id None",
        (2, 1),
    ),
    "of no image": (obj(image_id=7), r"annotations.0.: its image_id 7 is that of no", (1, 1)),
    "image_id is a list": (obj(image_id=[1]), r"annotations.0.: its image_id \[1\]", (1, 1)),
    "unknown category": (
        obj(category_id=5),
        "category_id 5 is none of the categories .4, 9.; correct",
        (1, 1),
    ),
    "no category_id": (obj(category_id=None), f"{ANNOTATION}category_id None", (1, 1)),
    "no bbox": (obj(bbox=None), f"{ANNOTATION}bbox is None; make it", (1, 1)),
    "bbox of three": (obj(bbox=[1, 2, 3]), r"bbox is \[1, 2, 3\]; make it", (1, 1)),
    "bbox of text": (obj(bbox=["1", 2, 3, 4]), "four finite numbers", (1, 1)),
    "infinite": (obj(bbox=[1, 2, 1e308 * 10, 4]), "Infinity is not JSON", FATAL),
    "overflow": (obj(bbox=[1, 2, 10**30, 4]), "four finite numbers", (1, 1)),
    "negative": (obj(bbox=[30, 5, -20, 10]), "has a negative width or height", (1, 1)),
    "no area": (obj(bbox=[30, 5, 0, 10]), "has no area; remove or redraw", (1, 1)),
    "outside": (obj(bbox=[50, 5, 20, 10]), "leaves the image of 60 x 40", (1, 1)),
    "fractions": (obj(bbox=[0.1, 0.1, 0.5, 0.5]), "is it in pixels, not fractions", (1, 1)),
    "iscrowd": (obj(iscrowd=2), "iscrowd is 2; make it 0 or 1", (1, 1)),
    "polygon of two points": (obj(segmentation=[POLYGON[:4]]), "at least three points", (1, 1)),
    "polygon of 7 numbers": (obj(segmentation=[[*POLYGON, 1]]), "at least three points", (1, 1)),
    "polygon is flat": (obj(segmentation=POLYGON), "at least three points", (1, 1)),
    "polygon outside": (
        obj(segmentation=[[*POLYGON, 1e8, 1]]),
        r"a polygon leaves the image of 60 x 40 pixels at \(1e\+08, 1\)",
        (1, 1),
    ),
    "RLE of another size": (
        rle([2400], (60, 40)),
        r"has the size \[60, 40\], not \[40, 60\]",
        (1, 1),
    ),
    "RLE too long": (rle([2401]), "run lengths .* do not cover the image", (1, 1)),
    "RLE negative": (rle([2500, -100]), "run lengths .* do not cover the image", (1, 1)),
    "RLE unpacked badly": (rle("oooo"), "run lengths .* do not cover the image", (1, 1)),
    "keypoints of two": (obj(keypoints=[1, 2]), "make it numbers .x, y, vis", (1, 1)),
    "too many keypoints": (obj(keypoints=[1, 2, 2] * 2), "has 2 keypoints, its category 1", (1, 1)),
    "visibility": (obj(keypoints=[1, 2, 3]), "make each visibility 0, 1 or 2", (1, 1)),
}
LINE = "a.txt: line 1: "
YOLO = {
    "empty": (yaml(""), "has no lines KEY: VALUE", FATAL),
    "tab": (yaml("\tnames: x"), "invalid YAML .*line 1", FATAL),
    "twice": (yaml(YAML + "\nnames: [a]"), "invalid YAML .'names' is on line", FATAL),
    "twice in a line": (yaml("{train: a, train: b}"), "invalid YAML .'train' is on line 1", FATAL),
    "list": (yaml("- train"), "has no lines KEY: VALUE", FATAL),
    "python": (yaml(hostile_yaml("/tmp/never")), "invalid YAML .*python/object", FATAL),
    "bomb": (yaml(yaml_bomb()), "invalid YAML .*an alias on line 2", FATAL),
    "no names": (yaml("train: images"), "names is None; make it the list", FATAL),
    "names is a number": (yaml("train: images\nnames: 2"), "names is 2; make it", FATAL),
    "names are truth values": (yaml(YAML.replace("cat", "yes")), "True is not text; write", FATAL),
    "names are numbers": (yaml(YAML.replace("cat", "1")), "1 is not text; write it in", FATAL),
    "same names": (yaml(YAML.replace("cat", "dog")), "'dog' is given more than once", FATAL),
    "a number is missing": (yaml("names: {0: cat, 2: dog}"), r"0, 2.* are not 0, 1, \.", FATAL),
    "nc": (yaml(f"{YAML}nc: 3"), "nc is 3, and names has 2; correct one", FATAL),
    "no split": (yaml("names: [cat, dog]"), "it has none of train, val, test", FATAL),
    "path leads out": (yaml(f"{YAML}path: .."), "path '..' is no folder in that of", FATAL),
    "path is none": (yaml(f'{YAML}path: "\\0"'), r"path '\\x00' is no folder in that of", FATAL),
    "path is missing": (yaml(f"{YAML}path: /no/such"), "path '/no/such' is no folder", FATAL),
    "split leads out": (yaml("train: a/../..\nnames: [a]"), "'a/../..' leads out of", FATAL),
    "absolute": (yaml("train: /etc\nnames: [a]"), "'/etc' leads out of", FATAL),
    "split is a number": (yaml("train: 3\nnames: [a]"), "train is 3; make it a path", FATAL),
    "split is missing": (yaml("train: x\nnames: [a]"), "x: there is no such folder", FATAL),
    "no images": (yaml("train: labels\nnames: [a]"), "no images in labels; correct", FATAL),
    "list leads out": (
        listed("images/a.jpg\n../../b.jpg\n"),
        "list.txt: line 2: '../../b.jpg' leads out of",
        (2, None),
    ),
    "listed twice": (listed("images/a.jpg\n" * 2), "images/a.jpg is listed twice", (2, None)),
    "listed and missing": (listed("images/a.jpg\nc.jpg"), "c.jpg: the image is mis", (2, None)),
    "list is empty": (listed("\n"), "no images in list.txt", FATAL),
    "unreadable image": (bad_image, "a.jpg: the image cannot be used", (None, 1)),
    "two images": (second_image, r"2 images have this name \(images/a.jpg, images/a", (None, 1)),
    "label is a folder": (label_is_folder, "a.txt: cannot be read .not a reg", (None, 1)),
    "label is not UTF-8": (lambda f: f.label(b"\xff\xfe"), "a.txt: not UTF-8", (None, 1)),
    "four values": (line("0 0.5 0.5 0.5"), f"{LINE}it has 4 values; an object is", (1, 1)),
    "a score": (line(f"{LABEL} 0.9"), "it has 6 values.*a sixth is a prediction's", (1, 1)),
    "polygon of 7 numbers": (line(f"{LABEL} 0 0 0"), "it has 8 values", (1, 1)),
    "commas": (line(LABEL.replace(" ", ",")), "it has 1 values", (1, 1)),
    "text": (line("cat 0.5 0.5 0.5 0.5"), f"{LINE}a value is 'cat'; make it a", (1, 1)),
    "not finite": (line("0 0.5 nan 0.5 0.5"), f"{LINE}a value is 'nan'; make it a", (1, 1)),
    "class too large": (line("2 0.5 0.5 0.5 0.5"), "class '2' is none of the 2 cla", (1, 1)),
    "class below 0": (line("-1 0.5 0.5 0.5 0.5"), "class '-1' is none of the 2", (1, 1)),
    "half a class": (line("0.5 0.5 0.5 0.5 0.5"), "class '0.5' is none of the 2", (1, 1)),
    "pixels": (line("0 30 20 30 20"), "are no fractions of the image; divide", (1, 1)),
    "negative": (line("0 0.5 0.5 -0.5 0.5"), "has a negative width or height", (1, 1)),
    "no area": (line("0 0.5 0.5 0 0.5"), "has no area; remove or redraw it", (1, 1)),
    "outside": (line("0 0.9 0.5 0.5 0.5"), "leaves the image of 60 x 40", (1, 1)),
    "tiny": (line("0 0.5 0.5 0.001 0.001"), "covers less than one pixel", (1, 1)),
    "polygon outside": (line("0 0 0 1.5 0 1 1"), "polygon leaves the image", (1, 1)),
}
ROWS = [(kind, name) for kind, rows in (("COCO", COCO), ("YOLO", YOLO)) for name in rows]


@pytest.mark.parametrize("kind, name", ROWS)
def test_it_is_named_and_counted(tmp_path, kind, name, caplog):
    is_coco = kind == "COCO"
    change, message, left = (COCO if is_coco else YOLO)[name]
    folder = ExportFolder(tmp_path)
    assert folder.read(is_coco) == (2, 1)
    change(folder)
    if isinstance(folder.content, dict):
        folder.save()
    else:
        raw = folder.content
        folder.json.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    with pytest.raises(DatasetError, match=message) as error:
        folder.read(is_coco)
    assert str(tmp_path) in str(error.value) and re.search("; |-", str(error.value))
    if left is FATAL:
        with pytest.raises(DatasetError, match=message):
            folder.read(is_coco, "skip")
        return
    assert error.value.kind != "dataset"
    assert folder.read(is_coco, "skip") == left
    assert re.search(rf"{error.value.kind} +\| +1 \|", caplog.text)


def test_there_are_enough():
    assert len(ROWS) >= 60
