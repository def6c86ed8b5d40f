"""Folders, split files and ids of the VOC layout."""

import os

import pytest
from voc_folder import write_voc_folder

from nrpn_d2.data import DatasetError, read_voc
from nrpn_d2.data.voc.layout import list_splits

CLASSES = ["cat", "dog"]


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


@pytest.mark.parametrize(
    "line, kind",
    [
        ("../a", "bad id"),
        ("x/../../a", "bad id"),
        ("/a", "bad id"),
        ("./a", "bad id"),
        ("..\\a", "bad id"),
        ("C:a", "missing image"),
        ("a\x00", "bad id"),
        ("a", "duplicate id"),
        ("nobody", "missing image"),
        ("a.jpg", "missing image"),
    ],
)
def test_bad_id(tmp_path, line, kind):
    root = write_voc_folder(tmp_path, [{"id": "a"}], splits={"train": f"a\n{line}\n"})
    with pytest.raises(DatasetError) as error:
        read_voc(root, "train", CLASSES)
    assert error.value.kind == kind
    assert [record["image_id"] for record in read_voc(root, "train", CLASSES, "skip")] == ["a"]


@pytest.mark.parametrize("part", ["ImageSets/Main", "JPEGImages", "Annotations"])
def test_folder_that_is_not_in_voc_layout(tmp_path, part):
    root = write_voc_folder(tmp_path, [{"id": "a"}])
    os.rename(os.path.join(root, part), os.path.join(root, "elsewhere"))
    with pytest.raises(DatasetError, match=f"no folder {part}"):
        read_voc(root, "train", CLASSES)


def test_bad_arguments(tmp_path):
    root = write_voc_folder(
        tmp_path, [{"id": "a"}], splits={"good": "a", "empty": "\n \n", "bad": b"\xff\xfe"}
    )
    for arguments, message in [
        ((root + "/no", "train", CLASSES), "no such folder"),
        ((root, "train", CLASSES), "train.txt: cannot be read .no such file.; correct"),
        ((root, "empty", CLASSES), "lists no image"),
        ((root, "bad", CLASSES), "not UTF-8"),
        ((root, "empty", []), "class names is empty"),
        ((root, "good", CLASSES, "ignore"), "VOC_ON_ERROR.*'ignore'"),
    ]:
        with pytest.raises(DatasetError, match=message):
            read_voc(*arguments)


def test_list_splits_leaves_out_the_lists_of_a_class(tmp_path):
    names = ("train", "val", "cat_train", "cat_val", "cat_only", "dog_train", "bird_train")
    root = write_voc_folder(tmp_path, [], splits=dict.fromkeys(names, "a"))
    assert list_splits(root, CLASSES) == ["bird_train", "cat_only", "train", "val"]
