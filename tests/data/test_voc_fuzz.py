"""Made-up files, and valid ones with some bytes changed: read, or refused with a reason."""

import functools
import os
import re
import struct
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from voc_folder import voc_xml, write_voc_folder

from nrpn_d2.data import DatasetError, read_voc
from nrpn_d2.data.reading import read_safely
from nrpn_d2.data.voc.reader import read_image

CLASSES = ["cat", "dog"]
OBJECTS = [("cat", (11, 6, 20.5, 15)), ("dog", (1, 1, 60, 40), 1), ("cat", ("2e1", 3, 30, 9), 0)]
TEXT = voc_xml((60, 40), OBJECTS)
XMLS = [TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode()] + [
    f'<?xml version="1.0" encoding="{encoding}"?>{TEXT}'.encode(encoding)
    for encoding in ("utf-8", "utf-16", "latin-1", "ascii")
]
SPLITS = [b"a\nb\n", b"\xef\xbb\xbfa 1\r\nb -1\r\n", b"b\n\na\n  \n"]
PIECES = rb"""<object> </object> <bndbox> </name> <xmin> <!-- --> ]]> <? <![CDATA[ &amp; &#0;
    &#x110000; &x; xmlns="a" nan -1 1e400 0x10 1_0 ../ \ C: a c dir/a""".split()
PIECES += [b"<!DOCTYPE a>", b"\xd9\xa5", b"\xff\xfe", b"\xed\xa0\x80", b"\x00", b"\x1a"]
PIECES += [b"\r", b"\x85", b"\xe2\x80\xa8", b" "]
TEXTS = ["", " ", *"cat dog Cat 0 1 2 60 61 61.5 -1 nan inf 1e400 1_0 0x10 20,5 1e-320".split()]
TEXTS += ["\u0665", "9" * 400]
TAGS = ("annotation", "object", "name", "bndbox", "xmin", "ymin", "xmax", "ymax", "size", "width")
TREES = st.recursive(
    st.one_of(st.sampled_from(TEXTS), st.text(max_size=8)),
    lambda inner: st.builds(
        "<{0}>{1}</{0}>".format, st.sampled_from(TAGS), st.lists(inner, max_size=5).map("".join)
    ),
    max_leaves=25,
).map(lambda tree: f"<annotation>{tree}</annotation>".encode("utf-8", "surrogatepass"))


@st.composite
def changed(draw, originals):
    """One of the originals after up to four edits: bytes left out, others put in, a piece moved."""
    content = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(start + draw(st.sampled_from([0, 0, 1, 2, 8, 40, 1000])), len(content))
        moved = draw(st.integers(0, len(content)))
        new = draw(
            st.one_of(
                st.sampled_from(PIECES),
                st.binary(max_size=3),
                st.just(content[moved : moved + 40]),
                st.integers(0, 2**32 - 1).map(lambda number: struct.pack(">I", number)),
            )
        )
        content = content[:start] + new + content[end:]
    return content


@st.composite
def other_texts(draw):
    """The annotation with up to three of its texts replaced: it stays well-formed."""
    parts = re.split(r">([^<>]+)<", TEXT)  # texts have odd numbers
    for number in draw(st.lists(st.integers(0, len(parts) // 2 - 1), min_size=1, max_size=3)):
        parts[2 * number + 1] = escape(draw(st.one_of(st.sampled_from(TEXTS), st.text(max_size=4))))
    joined = "".join(part if n % 2 == 0 else f">{part}<" for n, part in enumerate(parts))
    return joined.encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    images = [{"id": "a", "objects": OBJECTS}, {"id": "b", "suffix": ".png"}, {"id": "dir/a"}]
    return write_voc_folder(tmp_path_factory.mktemp("fuzz"), images)


def check_record(record):
    for note in record["annotations"]:
        x0, y0, x1, y1 = note["bbox"]
        assert 0 <= x0 < x1 <= record["width"] and 0 <= y0 < y1 <= record["height"]
        assert note["category_id"] in (0, 1) and note["difficult"] in (0, 1)


def check_image(folder):
    """The image "a" is read; each fault names the file and, after it, what is wrong."""
    read_one = functools.partial(read_image, folder, {"cat": 0, "dog": 1})
    image = read_safely(read_one, ("a", ["a.jpg"]))
    for fault in image.faults:
        assert (
            type(fault) is DatasetError
            and str(fault).startswith(folder)
            and fault.kind != "dataset"
        )
    event("dropped" if image.record is None else "kept")
    if image.record is None:
        assert image.faults
    else:
        check_record(image.record)


def check_folder(folder):
    """Both ways to take faults agree, and what is read is usable."""
    try:
        strict = read_voc(folder, "train", CLASSES)
    except DatasetError as error:
        assert folder in str(error)
        strict = None
    try:
        records = read_voc(folder, "train", CLASSES, "skip")
    except DatasetError as error:
        assert strict is None and folder in str(error)
        event("nothing left")
        return
    assert strict is None or strict == records
    event("dropped some" if strict is None else "read all")
    ids = [record["image_id"] for record in records]
    assert len(set(ids)) == len(ids)
    for record in records:
        path = os.path.realpath(record["file_name"])
        assert path.startswith(os.path.join(folder, "JPEGImages")) and os.path.isfile(path)
        check_record(record)


def check_with(check, folder, name, content):
    """Checks the folder with another content of one file."""
    path = os.path.join(folder, *name.split("/"))
    with open(path, "rb") as file:
        before = file.read()
    try:
        with open(path, "wb") as file:
            file.write(content)
        check(folder)
    finally:
        with open(path, "wb") as file:
            file.write(before)


def fuzz(examples):
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


@fuzz(600)
@given(content=st.one_of(changed(XMLS), other_texts(), TREES, st.binary(max_size=200)))
def test_changed_annotations(folder, content):
    check_with(check_image, folder, "Annotations/a.xml", content)


@fuzz(200)
@given(content=st.one_of(changed(SPLITS), st.binary(max_size=60)))
def test_changed_splits(folder, content):
    check_with(check_folder, folder, "ImageSets/Main/train.txt", content)


@fuzz(150)
@given(data=st.data())
def test_changed_images(folder, data):
    with open(os.path.join(folder, "JPEGImages", "a.jpg"), "rb") as file:
        original = file.read()
    content = data.draw(st.one_of(changed([original, original[:200]]), st.binary(max_size=300)))
    check_with(check_image, folder, "JPEGImages/a.jpg", content)
