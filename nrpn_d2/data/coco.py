"""COCO's JSON, as labelling tools export it -> Detectron2's standard dataset dicts.

Unlike Detectron2's reader it keeps crowds, as ``difficult`` objects; it checks everything, and says
what is wrong.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from ..utils.text_files import load_json
from .coco_shapes import keypoint_metadata, num_keypoints, read_keypoints, read_segmentation
from .faults import Box, DatasetError, check_class_names, clip_box, show
from .image_header import ImageHeader
from .reading import (
    Dataset,
    ReadImage,
    is_coordinate,
    make_annotation,
    make_record,
    read_header,
    read_records,
    stays_inside,
)

_REMEDY = "correct the file"
_Categories = dict[int, tuple[int, dict[str, Any]]]  # id -> class number, category


class _Task(NamedTuple):
    """One image, as the file has it."""

    index: int  # in "images"
    image: dict[str, Any]
    objects: list[tuple[int, dict[str, Any]]]  # index in "annotations", annotation


def coco_datasets(name: str, paths: Sequence[str], settings: CfgNode) -> dict[str, Dataset]:
    """Find the dataset of a COCO file; its images lie in the second path, or in its folder."""
    path, root = paths[0], paths[1] if len(paths) == 2 else os.path.dirname(paths[0]) or "."
    categories = _categories(path, _load(path))
    load = functools.partial(read_coco, path, root, settings.ON_ERROR)
    metadata = {
        "thing_classes": [category["name"] for category in categories],
        "thing_dataset_id_to_contiguous_id": {c["id"]: n for n, c in enumerate(categories)},
        "json_file": path,
        "image_root": root,
        **keypoint_metadata(categories),
    }
    return {name: Dataset(load, metadata)}


def read_coco(path: str, root: str, on_error: str = "error") -> list[dict[str, Any]]:
    """Read the images and objects of a COCO file, as :func:`read_voc` reads a split.

    The classes are its categories, in the order of their ids. Width and height are those of the
    image as Detectron2 reads it, which is turned by its EXIF orientation. Where the file has them
    exchanged, its boxes refer to the stored pixels and are turned, too. A crowd (``iscrowd``) is a
    ``difficult`` object. Annotations also have ``segmentation`` and ``keypoints`` where the file
    has them.

    Args:
        root: the folder that its ``file_name`` s start from; none leads out of it.
    """
    if not os.path.isdir(root):
        raise DatasetError(f"{root}: there is no such folder of images; correct the path")
    content = _load(path)
    categories = _categories(path, content)
    tasks, faults = _tasks(path, content)
    numbered = {category["id"]: (n, category) for n, category in enumerate(categories)}
    read_one = functools.partial(_read_image, path, root, numbered)
    return read_records(read_one, tasks, path, on_error, faults)


def _load(path: str) -> dict[str, list]:
    try:
        content = load_json(path)
    except ValueError as error:
        raise DatasetError(f"{error}; {_REMEDY}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            message = f"{path}: it has no list {key!r}, so it is not COCO's ground truth"
            raise DatasetError(f"{message} (is it predictions?); give another file")
    if not content["images"]:
        raise DatasetError(f"{path}: 'images' is empty; {_REMEDY}")
    return content


def _categories(path: str, content: dict[str, list]) -> list[dict[str, Any]]:
    """Return the categories by ascending ids."""
    for index, category in enumerate(content["categories"]):
        if not isinstance(category, dict) or not _is_int(category.get("id")):
            raise DatasetError(f"{path}: categories[{index}] has no whole number as id; {_REMEDY}")
    categories = sorted(content["categories"], key=lambda category: category["id"])
    if len({category["id"] for category in categories}) < len(categories):
        raise DatasetError(f"{path}: two categories have the same id; {_REMEDY}")
    check_class_names([category.get("name") for category in categories], f"{path}: categories: ")
    return categories


def _tasks(path: str, content: dict[str, list]) -> tuple[list[_Task], list[DatasetError]]:
    """Give each image its annotations; what belongs to no image is a fault."""
    by_id: dict[int | str, _Task] = {}
    places: dict[str, int] = {}  # file name -> index in "images"
    dropped: set[int | str] = set()
    faults = []
    for index, image in enumerate(content["images"]):
        where = f"{path}: images[{index}]"
        if not isinstance(image, dict) or not is_id(image.get("id")):
            faults.append(DatasetError(f"{where}: it has no id; number it", "bad id"))
            continue
        image_id, name = image["id"], str(image.get("file_name"))
        if image_id in by_id:
            message = f"{where}: images[{by_id[image_id].index}] has the id {show(image_id)}, too"
            faults.append(DatasetError(f"{message}; number them anew", "duplicate id"))
        elif name in places:
            message = f"{where}: images[{places[name]}] has the file_name {show(name)}, too"
            faults.append(DatasetError(f"{message}; delete one of them", "duplicate image"))
            dropped.add(image_id)
        else:
            by_id[image_id] = _Task(index, image, [])
            places[name] = index
    for index, annotation in enumerate(content["annotations"]):
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if is_id(image_id) and image_id in by_id:
            by_id[image_id].objects.append((index, annotation))
        elif not is_id(image_id) or image_id not in dropped:
            message = f"{path}: annotations[{index}]: its image_id {show(image_id)} is that of no "
            faults.append(DatasetError(f"{message}image; correct or delete it", "unknown image"))
    return list(by_id.values()), faults


def _read_image(path: str, root: str, categories: _Categories, task: _Task) -> ReadImage:
    where, name = f"{path}: images[{task.index}]", task.image.get("file_name")
    if not isinstance(name, str) or not stays_inside(name.removeprefix("./")):
        message = f"{where}: file_name {show(name)} is not the name of a file below {root}"
        raise DatasetError(f"{message}; make it relative to that folder, with '/'", "bad id")
    file = os.path.join(root, name.removeprefix("./"))
    header = read_header(file, os.path.basename(path))
    size = _annotated_size(task.image, header, where)
    annotations: list[dict[str, Any]] = []
    faults: list[DatasetError] = []
    for index, annotation in task.objects:
        try:
            annotations.append(_read_object(annotation, size, header, categories))
        except DatasetError as error:
            message = f"{path}: annotations[{index}] of {name}: {error}"
            faults.append(DatasetError(message, error.kind))
    record = make_record(file, task.image["id"], header.oriented_size, annotations)
    return ReadImage(record, faults=faults)


def _annotated_size(image: dict[str, Any], header: ImageHeader, where: str) -> tuple[int, int]:
    size = image.get("width"), image.get("height")
    if size == (None, None):
        return header.oriented_size
    if size not in (header.oriented_size, header.size):
        message = f"{where}: {show(image.get('file_name'))} is {show(size[0])} x {show(size[1])}"
        message += " here, but the image is {} x {} pixels".format(*header.oriented_size)
        raise DatasetError(f"{message}; correct one of them", "wrong size")
    return size


def _read_object(
    annotation: dict[str, Any], size: tuple[int, int], header: ImageHeader, categories: _Categories
) -> dict[str, Any]:
    category_id = annotation.get("category_id")
    if not _is_int(category_id) or category_id not in categories:
        message = f"category_id {show(category_id)} is none of the categories {show([*categories])}"
        raise DatasetError(f"{message}; correct it", "unknown class")
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DatasetError(f"iscrowd is {show(crowd)}; make it 0 or 1", "bad number")
    box = _read_box(annotation.get("bbox"), size)
    number, category = categories[category_id]
    extras: dict[str, Any] = {}
    # A crowd is ignored, whatever its shape; many exports write empty lists for "none"
    if annotation.get("segmentation") and not crowd:
        extras["segmentation"] = read_segmentation(annotation["segmentation"], size)
    if annotation.get("keypoints") and not crowd:
        keypoints = annotation["keypoints"]
        extras["keypoints"] = read_keypoints(keypoints, size, num_keypoints(category))
    if size != header.oriented_size:
        if extras:
            message = f"its {' and '.join(extras)} would have to be turned with the image, by EXIF"
            raise DatasetError(f"{message}; save the image turned", "wrong size")
        box = header.rotate_box(box)
    return {**make_annotation(box, number, int(crowd)), **extras}


def _read_box(bbox: Any, size: tuple[int, int]) -> Box:
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise DatasetError(f"bbox is {show(bbox)}; make it [x, y, width, height]", "bad box")
    if not all(map(is_coordinate, bbox)):
        raise DatasetError(f"bbox is {show(bbox)}; make it four finite numbers", "bad number")
    x, y, width, height = bbox
    # Sums of decimal fractions: 10.1 + 20.2 is not 30.3
    box = x, y, round(x + width, 6), round(y + height, 6)
    return clip_box(box, size, f"bbox [{x:g}, {y:g}, {width:g}, {height:g}]")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_id(value: Any) -> bool:
    """Tell whether a value can be an image's id."""
    return _is_int(value) or isinstance(value, str)
