"""Which images are usable, their size, and boxes under EXIF orientations."""

import os

import numpy as np
import pytest
from detectron2.data import detection_utils
from hostile_files import POSTSCRIPT, png_of_size
from PIL import Image, PngImagePlugin
from voc_folder import write_voc_folder

from nrpn_d2.data import DatasetError, read_voc
from nrpn_d2.data.image_header import read_image_header

CLASSES = ["cat"]
CAT = ("cat", (11, 6, 20, 15))


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


def test_a_png_without_metadata_is_not_decoded(tmp_path, monkeypatch):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert read_image_header(str(tmp_path / "a.png")) == ((60, 40), 1)


def test_broken_exif_is_no_exif(tmp_path):
    path = str(tmp_path / "a.jpg")
    Image.new("RGB", (60, 40)).save(path, exif=b"Exif\0\0 no TIFF at all")
    assert read_image_header(path) == ((60, 40), 1)
    assert detection_utils.read_image(path, "BGR").shape == (40, 60, 3)


@pytest.mark.parametrize("size", [(0, 40), (60, 0), (30000, 30000), (2**31 - 1, 1)])
def test_sizes_that_no_image_has(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(png_of_size(*size))
    with pytest.raises(ValueError):
        read_image_header(str(path))


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
    "TIFF": (
        lambda root: Image.new("RGB", (60, 40)).save(f"{root}/JPEGImages/bad.jpg", "TIFF"),
        "unreadable image",
    ),
    "loop of links": (
        lambda root: os.symlink("bad.jpg", f"{root}/JPEGImages/bad.jpg"),
        "unreadable image",
    ),
    "16 bit": (lambda root: save(root, "bad.png", Image.new("I;16", (60, 40))), "unreadable image"),
    "PostScript": (lambda root: write(root, "bad.jpg", POSTSCRIPT), "unreadable image"),
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
    with pytest.raises(DatasetError, match=r"bad(\.|\{)") as error:
        read_voc(root, "train", CLASSES)
    assert error.value.kind == kind
    assert [record["image_id"] for record in read_voc(root, "train", CLASSES, "skip")] == ["good"]


def test_an_image_too_large_for_pillow(tmp_path, monkeypatch):
    root = write_voc_folder(tmp_path, [{"id": "a", "size": (60, 40)}])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(DatasetError, match="a.jpg.*2400 pixels"):
        read_voc(root, "train", CLASSES)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_eight_bit_modes_become_three_channels(tmp_path, mode):
    suffix = ".jpg" if mode == "CMYK" else ".png"
    root = write_voc_folder(tmp_path, [{"id": "a", "suffix": suffix}])
    save(root, "a" + suffix, Image.new("RGB", (60, 40), (255, 255, 255)).convert(mode))
    (record,) = read_voc(root, "train", CLASSES)
    image = detection_utils.read_image(record["file_name"], "BGR")
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8 and (image > 250).all()
