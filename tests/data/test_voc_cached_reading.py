"""Large splits are read from a cache: when it is used, when it is not believed."""

import logging
import multiprocessing
import os
import stat
from collections import Counter

import pytest
from detectron2.utils import logger as detectron2_logger
from voc_folder import voc_xml, write_voc_folder

from nrpn_d2.data import VOCError, read_voc
from nrpn_d2.data.voc import cache as voc_cache
from nrpn_d2.data.voc import image as voc_image
from nrpn_d2.data.voc import reader as voc
from nrpn_d2.utils import parallel

CLASSES = ["cat", "dog"]
CAT = ("cat", (11.25, 6, 20.1, 15))
DOG = ("dog", (1, 1, 60, 40), 1)
IMAGES = [
    {"id": "a", "objects": [CAT, DOG]},
    {"id": "b/c", "objects": [DOG], "suffix": ".png", "orientation": 6},
    {"id": "without objects"},
    {"id": "without XML", "xml": False},
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache is used for every split, and for files that are as young as those of a test."""
    monkeypatch.setenv("NRPN_D2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(voc, "_LARGE", 1)
    monkeypatch.setattr(parallel, "free_processes", lambda: 1)
    monkeypatch.setattr(voc_cache, "_RESOLUTION", -1)
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    return write_voc_folder(tmp_path / "data", IMAGES)


@pytest.fixture
def read(monkeypatch, root):
    """Reads; gives the records and the ids of the images that were not in the cache."""
    read_image, seen = voc.read_image, []

    def watched(root, class_ids, named):
        seen.append(named[0])
        return read_image(root, class_ids, named)

    def read(split="train", classes=CLASSES, on_error="error"):
        seen.clear()
        return read_voc(root, split, classes, on_error), list(seen)

    monkeypatch.setattr(voc, "read_image", watched)
    return read


def uncached(monkeypatch, *arguments):
    with monkeypatch.context() as m:
        m.setenv("NRPN_D2_CACHE", "")
        return read_voc(*arguments)


def only_file(folder):
    (name,) = os.listdir(folder)
    return folder / name


def test_second_reading_opens_no_file_and_gives_the_same(read, root, monkeypatch, caplog):
    first, seen = read()
    assert seen == [image["id"] for image in IMAGES]
    assert first == uncached(monkeypatch, root, "train", CLASSES)
    monkeypatch.setattr(voc_image, "read_image_header", lambda _: pytest.fail("opened"))
    monkeypatch.setattr(voc_image, "load_annotation", lambda _: pytest.fail("opened"))
    with caplog.at_level(logging.INFO):
        again, seen = read()
    assert again == first and seen == []
    assert all(type(edge) is float for edge in again[0]["annotations"][0]["bbox"])
    assert "4 of 4 images are as they were when" in caplog.text
    assert "4 images, 3 objects (2 difficult), 2 images without objects (1 with" in caplog.text


def test_nothing_is_written_when_nothing_is_new(read, cache):
    read()
    before = os.stat(only_file(cache)).st_ino
    read()
    assert os.stat(only_file(cache)).st_ino == before


def test_small_splits_and_an_empty_variable_have_no_cache(read, cache, monkeypatch):
    monkeypatch.setattr(voc, "_LARGE", 5)
    assert read()[0] == read()[0] and not cache.exists()
    monkeypatch.setattr(voc, "_LARGE", 4)
    monkeypatch.setenv("NRPN_D2_CACHE", "")
    read()
    assert not cache.exists()
    monkeypatch.setenv("NRPN_D2_CACHE", str(cache))
    read()
    assert cache.exists()


def keep_times(path, change):
    """Changes a file as programs do that restore its times, at the next tick of its clock."""
    status = os.stat(path)
    change()
    while os.stat(path).st_ctime_ns == status.st_ctime_ns:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def other_xml(root):
    with open(f"{root}/Annotations/a.xml", "w") as file:
        file.write(voc_xml((60, 40), [("dog", (3, 3, 9, 9))]))


def same_size_and_times(root):
    path = f"{root}/Annotations/a.xml"

    def change():
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(text.replace("<name>cat", "<name>dog"))

    keep_times(path, change)


def other_image(root):
    write_voc_folder(root, [{**IMAGES[0], "size": (70, 50), "objects": []}], splits={"other": "a"})


def other_suffix(root):
    os.rename(f"{root}/JPEGImages/a.jpg", f"{root}/JPEGImages/a.jpeg")


def other_split(root):
    with open(f"{root}/ImageSets/Main/train.txt", "w") as file:
        file.write("without XML\na\n")


CHANGES = {
    "XML changed": (other_xml, ["a"]),
    "XML of equal size and times": (same_size_and_times, ["a"]),
    "XML removed": (lambda root: os.remove(f"{root}/Annotations/a.xml"), ["a"]),
    "XML added": (
        lambda root: os.rename(f"{root}/Annotations/a.xml", f"{root}/Annotations/without XML.xml"),
        ["a", "without XML"],
    ),
    "image changed": (other_image, ["a"]),
    "image renamed": (other_suffix, ["a"]),
    "split changed": (other_split, []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(read, root, monkeypatch, name):
    change, again = CHANGES[name]
    before, _ = read()
    change(root)
    records, seen = read()
    assert seen == again
    assert records == uncached(monkeypatch, root, "train", CLASSES) != before
    assert read() == (records, [])


def test_new_faults_are_found_and_found_again(read, root, monkeypatch, caplog):
    """An image with a fault is never kept: it is reported at every reading."""
    read()
    with open(f"{root}/Annotations/a.xml", "w") as file:
        file.write(voc_xml((60, 40), [CAT, ("bird", (3, 3, 9, 9))]))
    for _ in range(2):
        with pytest.raises(VOCError, match="a.xml: object 1 .'bird'"):
            read()
    for _ in range(2):
        caplog.clear()
        records, seen = read(on_error="skip")
        assert seen == ["a"] and len(records[0]["annotations"]) == 1
        assert "unknown class" in caplog.text


def test_what_was_read_before_a_fault_is_kept(read, root):
    os.remove(f"{root}/JPEGImages/without objects.jpg")
    with pytest.raises(VOCError, match="image is missing"):
        read()
    with open(f"{root}/ImageSets/Main/train.txt", "w") as file:
        file.write("a\nb/c\nwithout XML\n")
    assert read()[1] == ["without XML"]


def test_classes_splits_and_folders_do_not_share(read, root, tmp_path):
    ids = {name: index for index, name in enumerate(CLASSES)}
    assert [note["category_id"] for note in read()[0][0]["annotations"]] == list(ids.values())
    assert read("test")[1] and read(classes=["dog", "cat"])[1]
    assert [n["category_id"] for n in read(classes=["dog", "cat"])[0][0]["annotations"]] == [1, 0]
    other = write_voc_folder(tmp_path / "other", IMAGES[:1])
    assert read_voc(other, "train", CLASSES)[0]["file_name"].startswith(other)
    assert read() == (read_voc(root, "train", CLASSES), [])


def test_another_version_of_the_reader(read, monkeypatch, caplog):
    read()
    monkeypatch.setattr(voc_cache.PIL, "__version__", "0.1")
    assert len(read()[1]) == 4
    assert "the cache is damaged, or of another version; reading every file" in caplog.text
    assert read()[1] == []


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04", b"0" * 64 + b"\n[]"])
def test_a_foreign_file_is_replaced(read, cache, content, caplog):
    first, _ = read()
    only_file(cache).write_bytes(content)
    assert read() == (first, [image["id"] for image in IMAGES])
    assert f"{only_file(cache)}: the cache is damaged" in caplog.text
    assert read() == (first, [])


def test_a_cache_that_cannot_be_read(read, cache, caplog):
    first, _ = read()
    path = only_file(cache)
    path.unlink()
    path.mkdir()
    assert read()[0] == first
    assert "the cache cannot be read" in caplog.text and "set NRPN_D2_CACHE to" in caplog.text


def test_where_nothing_can_be_written_there_is_one_warning(read, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NRPN_D2_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(detectron2_logger, "_LOG_COUNTER", Counter())
    assert read()[0] == read("test")[0]
    warnings = [message for message in caplog.messages if "not kept for the next run" in message]
    assert len(warnings) == 1 and "set NRPN_D2_CACHE to a folder that can be written" in warnings[0]


def test_a_full_disk_leaves_nothing(read, cache, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nrpn_d2.utils.saving.os.fsync", full)
    assert len(read()[0]) == 4
    assert os.listdir(cache) == []


def write_many_times(root, start):
    start.wait()
    for _ in range(20):
        read_voc(root, "train", CLASSES)
        for name in os.listdir(os.environ["NRPN_D2_CACHE"]):
            os.utime(f"{root}/Annotations/a.xml")  # something new for the other process


def test_two_processes_write_at_once(read, root, cache):
    context = multiprocessing.get_context("fork")
    start = context.Event()
    writers = [context.Process(target=write_many_times, args=(root, start)) for _ in range(2)]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    records, _ = read()
    assert only_file(cache).suffix == ".txt"
    assert read() == (records, [])


def test_a_file_that_has_just_been_written_is_not_kept(read, root, monkeypatch):
    monkeypatch.setattr(voc_cache, "_RESOLUTION", 1000)
    read()
    assert read()[1] == [image["id"] for image in IMAGES]


def test_others_may_read_the_file(read, cache):
    """As far as the user's umask lets them."""
    umask = os.umask(0o022)
    try:
        read()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(os.stat(only_file(cache)).st_mode) == 0o644
