"""Broken images, annotations, splits and folders, for test_bad_input.py."""

import builtins
import os
import shutil

from small_run import CAT, SIZE
from voc_folder import voc_xml as xml_of

from nrpn_d2.data import VOCDatasetMapper

TRAINS = "trains"
XML = xml_of(SIZE, [CAT])
BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>'


def option(**options):
    """Other values of keys; "__" stands for the dot."""
    changed = {key.replace("__", "."): value for key, value in options.items()}
    return lambda run: run.options.update(changed)


def box(*edges):
    return lambda run: run.objects(CAT, ("cat", edges))


def xml(content):
    content = content if isinstance(content, bytes) else content.encode()
    return lambda run: run.xml.write_bytes(content)


def split(content):
    return lambda run: run.split.write_bytes(content)


def image(*arguments):
    return lambda run: run.picture(*arguments)


def both(*changes):
    return lambda run: [change(run) for change in changes]


def as_folder(name):
    def change(run):
        path = getattr(run, name)
        path.unlink(missing_ok=True)
        path.mkdir()

    return change


def as_loop(name):
    def change(run):
        path = getattr(run, name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(path)

    return change


def huge_header(run):
    content = bytearray(run.image.read_bytes())
    start = content.index(b"\xff\xc0")  # frame: marker, length, bits, height, width
    content[start + 5 : start + 9] = b"\xff\xff\xff\xff"
    run.image.write_bytes(content)


def while_training(change):
    """Changes something when the first image is loaded."""

    def arrange(run):
        load = VOCDatasetMapper.__call__
        run.patch.setattr(
            VOCDatasetMapper, "__call__", lambda self, record: (change(run), load(self, record))[1]
        )

    return arrange


def unreadable(name):
    """Tests may run as root, who may read everything: open() is told to refuse."""

    def arrange(run):
        path, really_open = str(getattr(run, name)), builtins.open

        def refuse(file, *arguments, **keywords):
            if str(file) == path:
                raise PermissionError(13, "Permission denied", path)
            return really_open(file, *arguments, **keywords)

        run.patch.setattr(builtins, "open", refuse)

    return arrange


ROWS = {
    "nothing broken": (lambda run: None, TRAINS),
    # images
    "truncated JPEG": (
        lambda run: os.truncate(run.image, 700),
        r"a\.jpg: the image cannot be dec.*; replace the",
    ),
    "zero bytes": (lambda run: run.image.write_bytes(b""), r"a\.jpg: the image cannot .*; replace"),
    "text": (lambda run: run.image.write_text("hello"), r"a\.jpg: the image cannot .*; replace it"),
    "TIFF named .jpg": (image("RGB", SIZE, "TIFF"), r"a\.jpg: the image cannot be used.*; replace"),
    "16 bits": (image("I;16", SIZE, "PNG"), r"a\.jpg: .*more than 8 bits; convert it to 8 bits"),
    "header of 65535 x 65535": (huge_header, r"a\.jpg: .*exceeds limit.*; replace it"),
    "CMYK": (image("CMYK"), TRAINS),
    "gray": (image("L"), TRAINS),
    "palette": (image("P", SIZE, "PNG"), TRAINS),
    "one bit": (image("1", SIZE, "PNG"), TRAINS),
    "transparent": (image("RGBA", SIZE, "PNG"), TRAINS),
    "gray and transparent": (image("LA", SIZE, "PNG"), TRAINS),
    "GIF named .jpg": (image("P", SIZE, "GIF"), TRAINS),
    "1 pixel": (image("RGB", (1, 1)), r"a\.xml: object 0 .'cat'.*has no area; remove or redraw"),
    "1 pixel, box from 0": (
        both(image("RGB", (1, 1)), lambda run: run.objects(("cat", (0, 0, 1, 1)), size=(1, 1))),
        TRAINS,
    ),
    "4 pixels": (image("RGB", (2, 2)), TRAINS),
    "panorama": (image("RGB", (20000, 10)), r"a\.jpg: the image .*must be > 0.; replace the file"),
    "tower": (image("RGB", (10, 20000)), r"a\.jpg: the image .*must be > 0.; replace the file"),
    "panorama that can be resized": (image("RGB", (20000, 100)), TRAINS),
    "folder named .jpg": (as_folder("image"), r"a\{\.jpg.*the image is missing; add it, or delete"),
    "loop of links": (as_loop("image"), r"a\.jpg: .*symbolic links.*; replace it, or delete its i"),
    "unreadable image": (unreadable("image"), r"a\.jpg: .*Permission denied.*; replace it, or del"),
    "missing image": (lambda run: run.image.unlink(), r"the image is missing; add it, or delete"),
    "two images of one id": (
        lambda run: shutil.copy(run.image, run.image.with_suffix(".png")),
        r"2 images have this id \(a\.jpg, a\.png\); keep one",
    ),
    "image removed while training": (
        while_training(lambda run: run.image.unlink()),
        r"a\.jpg: .*No such file.*; replace the f",
    ),
    "image changed while training": (
        while_training(image("RGB", (10, 10))),
        r"a\.jpg, got \(10, 10\).*changed.*start again",
    ),
    # annotations
    "wrong size": (
        lambda run: run.objects(CAT, size=(99, 99)),
        r"a\.xml: <size> is 99 x 99 but .*64 x 48.*c",
    ),
    "swapped x": (box(40, 5, 10, 30), r"a\.xml: object 1 .'cat'.*swapped; exchange min and max"),
    "swapped y": (box(10, 30, 40, 5), r"a\.xml: object 1 .'cat'.*swapped; exchange min and max"),
    "NaN": (box("nan", 5, 40, 30), r"a\.xml: object 1 .*<xmin> is 'nan'; make it a finite number"),
    "infinite": (box(1, 5, "inf", 30), r"a\.xml: object 1 .*<xmax> is 'inf'; make it a finite"),
    "overflow": (box(1, 5, 40, "1e999"), r"a\.xml: object 1 .*<ymax> is '1e999'; make it a fini"),
    "no area": (box(5, 5, 5, 30), r"a\.xml: object 1 .*has no area; remove or redraw it"),
    "outside": (box(5, 5, 99, 30), r"a\.xml: object 1 .*leaves the image of 64 x 48.*correct it"),
    "fractions": (box(0.1, 0.1, 0.5, 0.5), r"a\.xml: object 1 .*is it in pixels, not fractions"),
    "10,000 boxes": (
        both(
            lambda run: run.objects(*[CAT] * 10_000),
            option(MODEL__META_ARCHITECTURE="ProposalNetwork"),
        ),
        TRAINS,
    ),
    "class not in the list": (
        lambda run: run.objects(("Cat", CAT[1])),
        r"a\.xml: object 0 .'Cat'.*did you mean 'cat'",
    ),
    "no name": (xml(XML.replace("<name>cat</name>", "")), r"a\.xml: object 0 .*no <name>; add one"),
    "no bndbox": (xml(XML.replace("bndbox", "box")), r"a\.xml: object 0 .*0 <bndbox>.*; correct i"),
    "difficult is 2": (lambda run: run.objects((*CAT, 2)), r"a\.xml: .*<difficult>.*make it 0 or "),
    "no objects": (lambda run: run.objects(), r"own_train.*none of 1 images has an object.*check"),
    "difficult objects only": (lambda run: run.objects((*CAT, 1)), r"own_train.*none of 1 images."),
    "missing XML": (lambda run: run.xml.unlink(), r"own_train.*none of 1 images has an object.*ch"),
    "empty XML": (xml(""), r"a\.xml: not well-formed.*; repair the file"),
    "truncated XML": (xml(XML[:-9]), r"a\.xml: not well-formed.*; repair the file"),
    "XML that is not UTF-8": (xml(XML.encode() + b"\xe9"), r"a\.xml: not well.*saved as UTF-8"),
    "undecodable XML": (xml('<?xml version="1.0" encoding="gbk"?><a/>'), r"a\.xml: .*save it as U"),
    "entity bomb": (xml(BOMB), r"a\.xml: document types and entities are refused.*; remove"),
    "XML with namespace": (
        xml(XML.replace("<annotation>", '<annotation xmlns="x">')),
        r"a\.xml: the root is.*; repa",
    ),
    "HTML": (xml("<html/>"), r"a\.xml: the root is <'html'>, not <annotation>; repair the file"),
    "deep XML": (xml("<annotation>" + "<a>" * 200_000 + "</a>" * 200_000 + XML[12:]), TRAINS),
    "XML of 17 MB": (xml(XML + " " * 17 * 2**20), r"a\.xml: larger than 16777216 bytes; repair"),
    "XML is a folder": (as_folder("xml"), r"a\.xml: cannot be read \(not a regular file\); repair"),
    "unreadable XML": (unreadable("xml"), r"a\.xml: cannot be read .*Permission denied.*; repair"),
    # splits and folders
    "BOM and CRLF": (split(b"\xef\xbb\xbfa\r\n"), TRAINS),
    "split in UTF-16": (split("a\n".encode("utf-16")), r"train\.txt: not UTF-8.*; save it as UTF-"),
    "empty split": (split(b"\n \n"), r"train\.txt: the split file lists no image; write one id"),
    "duplicate id": (split(b"a\na\n"), r"train\.txt: line 2: id 'a' is already on line 1; delete"),
    "id leads out": (split(b"../../x\n"), r"train\.txt: line 1: id '\.\./\.\./x' is not.*; correc"),
    "absolute id": (split(b"/etc/x\n"), r"train\.txt: line 1: id '/etc/x' is not the name.*; corr"),
    "id with NUL": (split(b"a\0b\n"), r"train\.txt: line 1: id 'a\\x00b' is not the name.*; corr"),
    "split of other data": (split(b"2007_000027\n"), r"2007_000027\{.*is missing; add it, or dele"),
    "unreadable split": (unreadable("split"), r"train\.txt: .*Permission denied.*; correct the na"),
    "split is a folder": (as_folder("split"), r"train\.txt: the split file cannot be read.*; corr"),
    "no such split": (
        lambda run: run.split.unlink(),
        r"DATASETS\.TRAIN names 'own_train'.*no such dataset; did",
    ),
    "no JPEGImages": (
        lambda run: shutil.rmtree(run.image.parent),
        r"data: it has no folder JPEGImages.*; give",
    ),
    "no Annotations": (
        lambda run: shutil.rmtree(run.xml.parent),
        r"data: it has no folder Annotations.*; give",
    ),
    "link to the folder around it": (
        lambda run: (run.image.parent / "up").symlink_to(run.root),
        TRAINS,
    ),
    "JPEGImages is a loop": (
        both(lambda run: setattr(run, "images", run.image.parent), as_loop("images")),
        r"data: it has no folder JPEGImages.*; give",
    ),
    "the folder is a file": (
        lambda run: run.options.update({"DATASETS.VOC_ROOT": str(run.xml)}),
        r"a\.xml: there is no such folder; correct the path",
    ),
    "no DETECTRON2_DATASETS": (
        both(
            lambda run: run.patch.delenv("DETECTRON2_DATASETS", raising=False),
            option(DATASETS__TRAIN="('nrpn_voc_2007_val',)", MODEL__ROI_HEADS__NUM_CLASSES="20"),
        ),
        r"VOC2007: there is no such folder; extract VOC there, or set DETECTRON2_DATASETS",
    ),
}
