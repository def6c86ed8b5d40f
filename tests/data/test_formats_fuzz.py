"""COCO and YOLO input that nobody would write: an error of ours, or records that are usable."""

import json
import os
import time

import pytest
from export_folder import LABEL, YAML, ExportFolder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nrpn_d2.data import DatasetError


@pytest.mark.parametrize("start", [b"", b'{"images": [', b"[" * 100, b'{"images": ["'])
def test_200_mb_of_nonsense(tmp_path, start):
    folder = ExportFolder(tmp_path)
    with open(folder.json, "wb") as file:
        file.write(start)
        for _ in range(200):
            file.write(os.urandom(2**10) * 2**10 if not start else b"1234567,\n" * 116_508)
    folder.yaml.write_bytes(b"names: [" + b"a, " * 2**20)
    began = time.process_time()
    for is_coco in (True, False):
        with pytest.raises(DatasetError, match="invalid JSON|larger than"):
            folder.read(is_coco)
    assert time.process_time() - began < 60


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = "id file_name width height image_id category_id bbox iscrowd segmentation keypoints"
KEYS = [*KEYS.split(), "name"]
WORDS = ["0", "1", "2", "-1", "0.5", "0.25", "1e-9", "nan", "inf", "1e400", "0x1", "1_0", "", "#"]


def fuzz(examples):
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return ExportFolder(tmp_path_factory.mktemp("fuzz"))


def check(folder, is_coco):
    """What is read is usable, and both ways to take faults agree."""
    try:
        strict = folder.read(is_coco)
    except DatasetError as error:
        assert str(folder.root) in str(error)
        strict = None
    try:
        assert strict in (None, folder.read(is_coco, "skip"))
    except DatasetError:
        assert strict is None


@fuzz(200)
@given(data=st.data())
def test_any_values_in_coco(fuzzed, data):
    content = json.loads(json.dumps(fuzzed.content))
    for _ in range(data.draw(st.integers(1, 3))):
        elements = content[data.draw(st.sampled_from(list(content)))]
        index = data.draw(st.integers(0, len(elements) - 1))
        if isinstance(elements[index], dict) and data.draw(st.booleans()):
            elements[index][data.draw(st.sampled_from(KEYS))] = data.draw(VALUES)
        else:
            elements[index] = data.draw(VALUES)
    fuzzed.json.write_text(json.dumps(content))
    check(fuzzed, is_coco=True)


@fuzz(150)
@given(content=st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)).map("\n".join))
def test_any_words_in_labels(fuzzed, content):
    fuzzed.yaml.write_text(YAML)
    fuzzed.label(content)
    check(fuzzed, is_coco=False)


@fuzz(150)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.dictionaries(
            st.sampled_from(["train", "val", "names", "nc", "path"]), VALUES, max_size=5
        ).map(lambda value: json.dumps({"train": "images", "names": ["cat", "dog"], **value})),
    )
)
def test_any_values_in_yaml(fuzzed, content):
    fuzzed.label(LABEL)
    fuzzed.yaml.write_bytes(content if isinstance(content, bytes) else content.encode())
    check(fuzzed, is_coco=False)
