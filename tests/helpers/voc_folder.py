"""Writes small folders in VOC layout for the tests."""

import os
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image


def write_voc_folder(root, images, splits=None):
    """Writes ImageSets/Main, JPEGImages and Annotations below ``root`` and returns its path.

    Args:
        root: the folder to make.
        images (list[dict]): one per image, with
            id: str;
            size: (width, height) of the stored pixels, default (60, 40);
            objects: list of (name, (xmin, ymin, xmax, ymax)[, difficult]), numbers as they shall
                stand in the XML: VOC counts pixels from 1 and includes the last one;
            suffix: ".jpg" by default;
            pixels: uint8 array instead of ``size`` and random pixels;
            orientation: EXIF orientation, 1 to 8;
            xml: text or bytes instead of the XML made from ``objects``; False for no file;
            xml_size: (width, height) for the XML, default ``size``.
        splits (dict[str, list[str] or str or bytes]): ids of a split, or the content of its file;
            default: every image, in "train" and in "test".
    """
    root = str(root)
    for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    for image in images:
        _write_image(root, image)
        _write_annotation(root, image)
    ids = [image["id"] for image in images]
    for split, content in (splits or {"train": ids, "test": ids}).items():
        if isinstance(content, (list, tuple)):
            content = "".join(f"{image_id}\n" for image_id in content)
        _write(os.path.join(root, "ImageSets", "Main", f"{split}.txt"), content)
    return root


def voc_xml(size, objects):
    """The text of an annotation file."""
    lines = ["<annotation>"]
    if size:
        width, height = size
        lines.append(f"<size><width>{width}</width><height>{height}</height></size>")
    for name, box, *difficult in objects:
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box)
        edges = "".join(f"<{edge}>{value}</{edge}>" for edge, value in corners)
        flag = f"<difficult>{difficult[0]}</difficult>" if difficult else ""
        lines.append(f"<object><name>{escape(name)}</name>{flag}<bndbox>{edges}</bndbox></object>")
    return "\n".join(lines + ["</annotation>"])


def _write_image(root, image):
    pixels = image.get("pixels")
    if pixels is None:
        width, height = image.get("size", (60, 40))
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    if "orientation" in image:
        exif[0x0112] = image["orientation"]
    path = os.path.join(root, "JPEGImages", image["id"] + image.get("suffix", ".jpg"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    picture.save(path, exif=exif)


def _write_annotation(root, image):
    xml = image.get("xml")
    if xml is False:
        return
    if xml is None:
        size = image.get("size", (60, 40))
        if image.get("pixels") is not None:
            size = image["pixels"].shape[1::-1]
        xml = voc_xml(image.get("xml_size", size), image.get("objects", ()))
    path = os.path.join(root, "Annotations", image["id"] + ".xml")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _write(path, xml)


def _write(path, content):
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
