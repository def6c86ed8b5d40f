"""Objects that were found to lack a label, added to a copy of their dataset.

A file of decisions, as the page of tools/audit_labels.py exports it:

    {"dataset": "cells_train",
     "decisions": [{"image_id": "a", "box": [3, 4, 20, 30], "decision": "object", "class": "cat"}]}

A decision is "object", "ignore" (whose class may be left out) or "background", which adds nothing.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ElementTree, indent

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..utils.saving import atomic_open
from ..utils.text_files import load_json
from .coco import is_id
from .faults import Box, DatasetError, clip_box, did_you_mean, show
from .reading import is_coordinate, read_lines, stays_inside, walk
from .voc.layout import IMAGE_SUFFIXES
from .voc.xml import add_element, annotated_size, load_annotation
from .yolo import SPLITS, SUFFIXES, label_file, load_data_yaml, place_below

DECISIONS = ("object", "background", "ignore")
_MAX_BYTES = 64 * 2**20  # of a text


class Addition(NamedTuple):
    """An object to add."""

    record: dict[str, Any]  # of its image
    box: Box
    class_name: str
    ignored: bool
    source: str  # where it comes from, for messages


def read_decisions(path: str, dataset_name: str) -> list[Addition]:
    """Read a file of decisions, and check it against the dataset.

    Raises:
        DatasetError: naming the file and the entry.
    """
    try:
        content = load_json(path, _MAX_BYTES)
    except ValueError as error:
        raise DatasetError(f"{error}; export it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("decisions"), list):
        message = f"{path}: it has no list 'decisions'"
        raise DatasetError(f"{message}; give the file that the page exported")
    if content.get("dataset") != dataset_name:
        message = f"{path}: its dataset is {show(content.get('dataset'))}, not {dataset_name!r}"
        raise DatasetError(f"{message}; give the dataset that it belongs to")
    records = {record["image_id"]: record for record in DatasetCatalog.get(dataset_name)}
    class_names = MetadataCatalog.get(dataset_name).thing_classes
    additions: dict[tuple[Hashable, Box], Addition] = {}
    for number, entry in enumerate(content["decisions"]):
        where = f"{path}: decisions[{number}]"
        try:
            addition = _read_entry(entry, records, class_names, where)
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}", error.kind) from None
        place = addition.record["image_id"], addition.box
        if place in additions:
            raise DatasetError(f"{where}: the same box as {additions[place].source}; delete one")
        additions[place] = addition
    return [addition for addition in additions.values() if addition.class_name]


def _read_entry(
    entry: Any, records: dict[Hashable, dict[str, Any]], class_names: list[str], where: str
) -> Addition:
    if not isinstance(entry, dict):
        raise DatasetError(f"{show(entry)} is no decision")
    image_id, box = entry.get("image_id"), entry.get("box")
    decision, class_name = entry.get("decision"), entry.get("class")
    if isinstance(image_id, (bool, list, dict)) or image_id not in records:
        raise DatasetError(f"image_id {show(image_id)} is that of no image of the dataset")
    if decision not in DECISIONS:
        raise DatasetError(f"decision is {show(decision)}; it must be one of {DECISIONS}")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_coordinate, box)):
        raise DatasetError(f"box is {show(box)}; it must be [x0, y0, x1, y1] in pixels")
    record = records[image_id]
    size = record["width"], record["height"]
    if decision == "background":  # adds nothing: even a box without a pixel will do
        return Addition(record, tuple(box), "", False, where)
    clipped = clip_box(box, size, f"box {show(box)}", "correct it")
    if decision == "ignore" and class_name is None:
        class_name = class_names[0]  # nothing is learned of it, whatever its class
    elif not isinstance(class_name, str) or class_name not in class_names:
        message = f"class {show(class_name)} is none of {show(class_names)}; "
        raise DatasetError(f"{message}{did_you_mean(str(class_name), class_names)}correct it")
    return Addition(record, clipped, class_name, decision == "ignore", where)


def write_corrected(dataset_name: str, additions: Iterable[Addition], output: str) -> None:
    """Write a dataset with additional objects to a new place; its own files stay as they are.

    Args:
        output: the new file of a COCO dataset, the new folder of one in VOC layout or of YOLO; in
            it, pictures and large files are links to the old ones.

    Raises:
        DatasetError: ``output`` exists or lies in the dataset, the dataset's format is unknown, or
            cannot say what is to be added.
    """
    of_image: dict[Hashable, list[Addition]] = {}
    for addition in additions:
        of_image.setdefault(addition.record["image_id"], []).append(addition)
    metadata = MetadataCatalog.get(dataset_name)
    if os.path.lexists(output):
        raise DatasetError(f"{output} exists already; name a new file or folder")
    if metadata.get("json_file"):
        _write_coco(metadata.json_file, of_image, output)
    elif metadata.get("yaml_file"):
        _in_copy(metadata.dirname, output, lambda root: _write_yolo(metadata, root, of_image))
    elif metadata.get("dirname") and metadata.get("split"):
        _in_copy(metadata.dirname, output, lambda root: _write_voc(root, of_image))
    else:
        message = f"dataset {dataset_name!r} was registered by other code, which does not say from"
        raise DatasetError(f"{message} which file; only COCO, YOLO and VOC layout can be written")


def _in_copy(root: str, output: str, correct: Callable[[str], None]) -> None:
    """Copy a folder, with links for pictures and large files; the copy is whole or absent.

    Links to folders are followed, as by the readers: nothing is written where they lead. Hidden
    folders, such as .git, are left out.
    """
    output, folder = os.path.abspath(output), os.path.realpath(root)
    if os.path.commonpath([folder, os.path.realpath(output)]) == folder:
        raise DatasetError(f"{output} lies in the dataset's folder {root}; choose one outside")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    root = root.rstrip(os.sep)
    # Before the draft is there, which a link may lead to
    tree = [(at, names) for at, names in walk(root) if f"{os.sep}." not in at[len(root) :]]
    draft = tempfile.mkdtemp(prefix=".audit-", dir=os.path.dirname(output))
    try:
        for folder, names in tree:
            copied = os.path.join(draft, os.path.relpath(folder, root))
            os.makedirs(copied, exist_ok=True)
            for name in names:
                _copy(os.path.join(folder, name), os.path.join(copied, name))
        correct(draft)
        os.chmod(draft, 0o755)
        os.rename(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _copy(source: str, target: str) -> None:
    if not os.path.isfile(source):  # a link to nowhere, a device
        return
    picture = source.lower().endswith((*SUFFIXES, *IMAGE_SUFFIXES))
    if picture or os.path.getsize(source) > _MAX_BYTES:
        os.symlink(os.path.abspath(source), target)
    else:
        shutil.copyfile(source, target)


def _write_voc(root: str, of_image: dict[Hashable, list[Addition]]) -> None:
    for image_id, additions in of_image.items():
        path = os.path.join(root, "Annotations", f"{image_id}.xml")
        record = additions[0].record
        if os.path.exists(path):
            annotation = load_annotation(path)
            _check_turned(record, annotated_size(annotation, path))
        else:
            annotation = Element("annotation")
            add_element(annotation, "size", width=record["width"], height=record["height"])
        for addition in additions:
            texts = {"name": addition.class_name, "difficult": int(addition.ignored)}
            element = add_element(annotation, "object", **texts)
            # VOC counts pixels from 1 and includes the last one; many tools read integers only
            x0, y0, x1, y1 = map(round, addition.box)
            ends = {"xmax": max(x1, x0 + 2), "ymax": max(y1, y0 + 2)}
            add_element(element, "bndbox", xmin=x0 + 1, ymin=y0 + 1, **ends)
        indent(annotation)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        ElementTree(annotation).write(path, "utf-8")


def _write_coco(json_file: str, of_image: dict[Hashable, list[Addition]], output: str) -> None:
    if not output.endswith(".json"):
        raise DatasetError(f"{output}: the name of COCO's file must end in .json")
    content = load_json(json_file)
    numbers = {category["name"]: category["id"] for category in content["categories"]}
    images = [x for x in content["images"] if isinstance(x, dict) and is_id(x.get("id"))]
    # Of two images with one id, the reader takes the first
    sizes = {image["id"]: (image.get("width"), image.get("height")) for image in reversed(images)}
    known = [obj.get("id") for obj in content["annotations"] if isinstance(obj, dict)]
    new_id = max((i for i in known if isinstance(i, int)), default=0) + 1
    for image_id, additions in of_image.items():
        _check_turned(additions[0].record, sizes[image_id])
        for addition in additions:
            x0, y0, x1, y1 = addition.box
            box = [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]
            ignored = int(addition.ignored)
            annotation = {
                "id": new_id,
                "image_id": image_id,
                "category_id": numbers[addition.class_name],
                "bbox": box,
                "area": round(box[2] * box[3], 2),
                "iscrowd": ignored,
                "ignore": ignored,
                "segmentation": [],
            }
            content["annotations"].append(annotation)
            new_id += 1
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    with atomic_open(output, "w") as file:
        json.dump(content, file)


def _write_yolo(metadata: Any, root: str, of_image: dict[Hashable, list[Addition]]) -> None:
    class_names = metadata.thing_classes
    for image_id, additions in of_image.items():
        lines = []
        for addition in additions:
            if addition.ignored:
                message = f"{addition.source}: 'ignore' cannot be written: YOLO has objects and "
                raise DatasetError(f"{message}background only; make it one of the two")
            (x0, y0, x1, y1), record = addition.box, addition.record
            box = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
            sides = (record["width"], record["height"]) * 2
            values = (f"{value / side:.6f}" for value, side in zip(box, sides))
            lines.append(" ".join([str(class_names.index(addition.class_name)), *values]))
        path = os.path.join(root, label_file(image_id))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        before = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8-sig") as file:
                before = file.read().rstrip()
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join([before] * bool(before) + lines) + "\n")
    content = load_data_yaml(metadata.yaml_file)
    content.pop("path", None)  # the copy is the folder of its data.yaml, whatever that was before
    for split in SPLITS:
        places = content.get(split) or []
        places = [places] if isinstance(places, str) else places
        content[split] = [place_below(split, metadata.dirname, place) or "." for place in places]
        for path in (os.path.join(root, place) for place in content[split]):
            if os.path.isfile(path):
                lines = read_lines(path, "correct the list of images")
                with open(path, "w", encoding="utf-8") as file:
                    file.writelines(f"{_in_dataset(line, metadata.dirname)}\n" for line in lines)
    name = os.path.basename(metadata.yaml_file)
    with open(os.path.join(root, name), "w", encoding="utf-8") as file:
        yaml.safe_dump(content, file, allow_unicode=True, sort_keys=False)


def _in_dataset(line: str, root: str) -> str:
    """Return a list's absolute path as one relative to the root; others stay as they are."""
    inside = os.path.relpath(line, root).replace(os.sep, "/") if os.path.isabs(line) else line
    return inside if stays_inside(inside) else line


def _check_turned(record: dict[str, Any], size: tuple[Any, Any] | None) -> None:
    """Refuse labels that refer to the stored pixels of an image that EXIF turns."""
    own = record["width"], record["height"]
    if size not in (None, (None, None), own):
        message = f"{record['file_name']}: EXIF turns the image, and its labels are of before that"
        raise DatasetError(f"{message}; save the image turned, and exchange width and height")
