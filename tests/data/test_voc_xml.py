"""One annotation file: what is accepted, and which fault the rest has."""

import xml.etree.ElementTree as ElementTree

import pytest
from voc_folder import voc_xml as xml_text

from nrpn_d2.data import DatasetError
from nrpn_d2.data.voc import xml as voc_xml
from nrpn_d2.data.voc.xml import annotated_size, load_annotation, parse_object

SIZE = (60, 40)
CLASSES = {"cat": 0, "dog": 1}


def parse(box, name="cat", *difficult):
    root = ElementTree.fromstring(xml_text(SIZE, [(name, box, *difficult)]))
    return parse_object(root.find("object"), SIZE, CLASSES)


@pytest.mark.parametrize(
    "box, expected",
    [
        # 1-based and inclusive: only the upper left corner moves.
        ((1, 1, 60, 40), (0, 0, 60, 40)),
        ((11, 6, 20, 15), (10, 5, 20, 15)),
        (("12.0", " 6.5 ", "2e1", "15"), (11, 5.5, 20, 15)),
        # Counted from 0, or without the last pixel: one pixel beyond, clipped.
        ((0, 0, 61, 41), (0, 0, 60, 40)),
        ((0, 3, 10, 9), (0, 2, 10, 9)),
    ],
)
def test_box_becomes_zero_based(box, expected):
    assert parse(box)[1] == expected


@pytest.mark.parametrize(
    "box, kind",
    [
        ((10, 10, 10, 20), "degenerate box"),
        ((10, 10, 20, 10), "degenerate box"),
        ((20, 10, 10, 20), "swapped box"),
        ((10, 20, 20, 10), "swapped box"),
        ((-1, 1, 10, 10), "box outside the image"),
        ((1, -0.5, 10, 10), "box outside the image"),
        ((1, 1, 62, 10), "box outside the image"),
        ((1, 1, 10, 41.5), "box outside the image"),
        ((100, 100, 110, 110), "box outside the image"),
        # Fractions of the image instead of pixels.
        ((0.1, 0.1, 0.8, 0.9), "degenerate box"),
        (("nan", 1, 10, 10), "bad number"),
        ((1, "inf", 10, 10), "bad number"),
        ((1, 1, "1e999", 10), "bad number"),
        ((1, 1, 10, "1_0"), "bad number"),
        ((1, 1, 10, ""), "bad number"),
        ((1, 1, 10, "ten"), "bad number"),
    ],
)
def test_bad_box_is_named(box, kind):
    with pytest.raises(DatasetError) as error:
        parse(box)
    assert error.value.kind == kind


def test_unknown_class_proposes_the_nearest():
    with pytest.raises(DatasetError, match="'cat', 'dog'.*did you mean 'cat'") as error:
        parse((1, 1, 9, 9), "Cat")
    assert error.value.kind == "unknown class"


@pytest.mark.parametrize("value, expected", [(0, 0), (1, 1), ("", 0), (" 1 ", 1)])
def test_difficult(value, expected):
    assert parse((1, 1, 9, 9), "dog", value) == (1, (0, 0, 9, 9), expected)


def test_difficult_is_optional_but_not_arbitrary():
    assert parse((1, 1, 9, 9))[2] == 0
    with pytest.raises(DatasetError, match="<difficult> is '2'"):
        parse((1, 1, 9, 9), "cat", 2)


@pytest.mark.parametrize(
    "inner, message",
    [
        ("<name>cat</name>", "0 <bndbox>"),
        ("<name>cat</name><bndbox/><bndbox/>", "2 <bndbox>"),
        ("<name>cat</name><bndbox><xmin>1</xmin></bndbox>", "<ymin> is missing"),
        ("<bndbox/>", "no <name>"),
        ("<name> </name>", "no <name>"),
    ],
)
def test_incomplete_object(inner, message):
    with pytest.raises(DatasetError, match=message):
        parse_object(ElementTree.fromstring(f"<object>{inner}</object>"), SIZE, CLASSES)


def test_the_box_of_a_part_is_not_the_box_of_the_object():
    inner = "<part><name>head</name><bndbox><xmin>5</xmin></bndbox></part>"
    text = xml_text(SIZE, [("cat", (1, 1, 9, 9))]).replace("</object>", inner + "</object>")
    element = ElementTree.fromstring(text).find("object")
    assert parse_object(element, SIZE, CLASSES)[1] == (0, 0, 9, 9)


def load(tmp_path, content):
    path = tmp_path / "a.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_annotation(str(path))


BOMB = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><annotation>&b;</annotation>"""
EXTERNAL = """<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/hostname">]>
<annotation>&a;</annotation>"""
DTD = '<!DOCTYPE annotation SYSTEM "http://localhost/voc.dtd"><annotation/>'


@pytest.mark.parametrize("content", [BOMB, EXTERNAL, DTD])
def test_document_types_are_refused(tmp_path, content):
    with pytest.raises(DatasetError, match="a.xml: document types and entities are refused"):
        load(tmp_path, content)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "not well-formed"),
        ("<annotation>", "not well-formed"),
        ("<annotation/><annotation/>", "not well-formed"),
        ("<annotation>&undefined;</annotation>", "not well-formed"),
        (b"<annotation>\xe9</annotation>", "UTF-8"),
        (b"\x00\x01\x02", "not well-formed"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "not well-formed"),
        ('<?xml version="1.0" encoding="gbk"?><annotation/>', "save it as UTF-8"),
        ("<html/>", "the root is <'html'>"),
        ('<annotation xmlns="x"/>', "the root is"),
    ],
)
def test_broken_file_is_named(tmp_path, content, message):
    with pytest.raises(DatasetError, match=message) as error:
        load(tmp_path, content)
    assert "a.xml" in str(error.value)
    assert error.value.kind == "broken XML"


def test_other_encodings_are_read_where_they_are_declared(tmp_path):
    text = '<?xml version="1.0" encoding="{}"?><annotation><name>caf\xe9</name></annotation>'
    for encoding in ("latin-1", "utf-16", "windows-1252"):
        assert load(tmp_path, text.format(encoding).encode(encoding)).findtext("name") == "caf\xe9"
    assert load(tmp_path, b"\xef\xbb\xbf<annotation/>\r\n").tag == "annotation"


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(voc_xml, "MAX_XML_BYTES", 20)
    assert load(tmp_path, "<annotation/>       ").tag == "annotation"
    with pytest.raises(DatasetError, match="larger than 20 bytes"):
        load(tmp_path, "<annotation/>        ")


def test_depth_is_no_danger(tmp_path):
    deep = "<a>" * 200_000 + "</a>" * 200_000
    assert load(tmp_path, f"<annotation>{deep}</annotation>").tag == "annotation"


def test_a_folder_or_a_dead_link_is_no_annotation(tmp_path):
    (tmp_path / "folder.xml").mkdir()
    (tmp_path / "link.xml").symlink_to(tmp_path / "nowhere")
    for name in ("folder.xml", "link.xml"):
        with pytest.raises(DatasetError, match="not a regular file"):
            load_annotation(str(tmp_path / name))


@pytest.mark.parametrize(
    "size, expected",
    [
        ("", None),
        ("<size><width>60</width><height>40.0</height></size>", (60, 40)),
        ("<size><width>60.5</width><height>40</height></size>", (60.5, 40)),
    ],
)
def test_annotated_size(size, expected):
    root = ElementTree.fromstring(f"<annotation>{size}</annotation>")
    assert annotated_size(root, "a.xml") == expected


@pytest.mark.parametrize("size", ["<width>60</width>", "<width>x</width><height>1</height>"])
def test_incomplete_size(size):
    root = ElementTree.fromstring(f"<annotation><size>{size}</size></annotation>")
    with pytest.raises(DatasetError, match="a.xml: <size>: <(width|height)> is"):
        annotated_size(root, "a.xml")
