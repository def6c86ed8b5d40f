"""YOLO folders: ``data.yaml``, images/ and labels/ -> Detectron2's standard dataset dicts.

root/data.yaml              path, train, val, test: folders of images, or lists of them (.txt);
                            names: the classes
root/.../images/.../a.jpg   its objects are in
root/.../labels/.../a.txt   a line each: class, then x and y of the centre, width and height, or the
                            points of a polygon, all in fractions of the image
"""

import functools
import os
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode

from ..utils.text_files import load_yaml
from .faults import DatasetError, check_class_names, clip_box, show, to_number
from .reading import (
    Dataset,
    ReadImage,
    image_files,
    make_annotation,
    make_record,
    read_header,
    read_lines,
    read_records,
    stays_inside,
)

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
_MAX_LABEL_BYTES = 16 * 2**20

# Files have six digits, as a rule: x and width, each rounded to 5e-7 of the image, make an edge
# wrong by up to 0.003 pixels in 4,000. Rounding to hundredths of a pixel gives back what was drawn
_DECIMALS = 2


def yolo_datasets(name: str, paths: Sequence[str], settings: CfgNode) -> dict[str, Dataset]:
    """Find the datasets ``<name>_train``, ``<name>_val`` and ``<name>_test`` of a data.yaml.

    A second path is the folder of the dataset, in place of the file's ``path``.
    """
    path = paths[0]
    content = load_data_yaml(path)
    class_names = _class_names(path, content)
    root = paths[1] if len(paths) == 2 else _root(path, content.get("path"))
    datasets = {}
    for split in SPLITS:
        places = content.get(split)
        if places:
            places = [places] if isinstance(places, str) else places
            if not isinstance(places, list):
                raise DatasetError(f"{path}: {split} is {show(places)}; make it a path or a list")
            load = functools.partial(
                read_yolo, f"{path}: {split}", root, places, class_names, settings.ON_ERROR
            )
            metadata = {"thing_classes": class_names, "yaml_file": path, "dirname": root}
            datasets[f"{name}_{split}"] = Dataset(load, metadata)
    if not datasets:
        raise DatasetError(f"{path}: it has none of {', '.join(SPLITS)}; add the one you need")
    return datasets


def read_yolo(
    source: str,
    root: str,
    places: Sequence[str],
    class_names: Sequence[str],
    on_error: str = "error",
) -> list[dict[str, Any]]:
    """Read one split of a dataset in YOLO's layout, as :func:`read_voc` reads one.

    Pixel coordinates are rounded to hundredths. Images without a label file, and empty label files,
    give a record without annotations: a background image. No path leads out of ``root``. The
    ``image_id`` is the path below it without its suffix. Objects drawn as polygons have a
    ``segmentation``.

    Args:
        source: what lists the places, for messages.
        places: folders and lists of images (.txt), relative to ``root``.
    """
    files: dict[str, list[str]] = {}  # path without suffix -> images, relative to root
    faults: list[DatasetError] = []
    for place in places:
        for file in _list_images(source, root, place_below(source, root, place), faults):
            same_label = files.setdefault(os.path.splitext(file)[0], [])
            if file in same_label:
                message = f"{source}: {file} is listed twice; delete one of the two"
                faults.append(DatasetError(message, "duplicate id"))
            else:
                same_label.append(file)
    if not files and not faults:
        raise DatasetError(f"{source}: no images in {', '.join(places)}; correct the path")
    read_one = functools.partial(_read_image, root, len(class_names))
    return read_records(read_one, list(files.items()), source, on_error, faults)


def load_data_yaml(path: str) -> dict[str, Any]:
    try:
        content = load_yaml(path)
    except ValueError as error:
        raise DatasetError(f"{error}; correct the file") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: it has no lines KEY: VALUE; is it a YOLO data.yaml?")
    return content


def _class_names(path: str, content: dict[str, Any]) -> list[str]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise DatasetError(f"{path}: names: the numbers {show(list(names))} are not 0, 1, ...")
        names = [names[key] for key in sorted(names, key=lambda key: int(str(key)))]
    if not isinstance(names, list):
        raise DatasetError(f"{path}: names is {show(names)}; make it the list of the classes")
    for name in names:
        if not isinstance(name, str):  # YAML makes numbers of 0, and truth values of yes and no
            raise DatasetError(f"{path}: names: {show(name)} is not text; write it in quotes")
    if count is not None and count != len(names):
        raise DatasetError(f"{path}: nc is {show(count)}, and names has {len(names)}; correct one")
    return check_class_names(names, f"{path}: names: ")


def _root(path: str, given: Any) -> str:
    """Return the folder of the dataset: that of data.yaml, or one in it."""
    folder = os.path.dirname(path) or "."
    if given is None:
        return folder
    root, inside = os.path.join(folder, str(given)), os.pardir
    if str(given).isprintable():  # else the system takes it for no path at all
        inside = os.path.relpath(os.path.realpath(root), os.path.realpath(folder))
    if inside.split(os.sep)[0] == os.pardir or not os.path.isdir(root):
        message = f"{path}: path {show(given)} is no folder in that of the file; delete the line"
        raise DatasetError(f"{message}, or give the folder as the third of DATASETS.OWN")
    return root


def place_below(source: str, root: str, place: Any) -> str:
    """Return a place relative to the root, "" for itself.

    ".." at the start is left out: some tools write "../train/images" for "train/images".
    """
    if isinstance(place, str):
        inside = place.removeprefix("../").removeprefix("./")
        inside = os.path.relpath(place, root) if os.path.isabs(place) else inside
        inside = inside.replace(os.sep, "/").rstrip("/")
        if inside in ("", ".") or stays_inside(inside):
            return "" if inside == "." else inside
    raise DatasetError(f"{source}: {show(place)} leads out of {root}; correct the path", "bad id")


def _list_images(source: str, root: str, place: str, faults: list[DatasetError]) -> Iterator[str]:
    """Yield the images of a folder, sorted, or of a list, relative to the root."""
    path = os.path.join(root, place)
    if os.path.isdir(path):
        yield from sorted(posixpath.join(place, file) for file in image_files(path, SUFFIXES))
        return
    if not place.endswith(".txt"):
        raise DatasetError(f"{path}: there is no such folder ({source}); correct the path")
    for number, line in enumerate(read_lines(path, "correct the list of images"), start=1):
        if not line:
            continue
        # "./images/a.jpg" starts from the list's own folder, as in ultralytics
        inner = os.path.join(os.path.dirname(place), line[2:]) if line.startswith("./") else line
        try:
            yield place_below(f"{path}: line {number}", root, inner)
        except DatasetError as error:
            faults.append(error)


def _read_image(root: str, num_classes: int, named: tuple[str, Sequence[str]]) -> ReadImage:
    stem, files = named
    label = os.path.join(root, label_file(stem))
    has_label = os.path.lexists(label)
    path = os.path.join(root, files[0])
    if len(files) > 1:
        message = f"{path}: {len(files)} images have this name ({', '.join(sorted(files))})"
        raise DatasetError(f"{message}; keep one of them", "ambiguous image")
    size = read_header(path, "dataset").oriented_size
    annotations: list[dict[str, Any]] = []
    faults: list[DatasetError] = []
    lines = read_lines(label, "repair the file", "bad label", _MAX_LABEL_BYTES) if has_label else ()
    for number, line in enumerate(lines, start=1):
        if line:
            try:
                annotations.append(_read_object(line.split(), size, num_classes))
            except DatasetError as error:
                faults.append(DatasetError(f"{label}: line {number}: {error}", error.kind))
    return ReadImage(make_record(path, stem, size, annotations), has_label, faults)


def label_file(stem: str) -> str:
    """Return the path of a label: the last folder "images" becomes "labels"."""
    *folders, name = stem.split("/")
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return os.path.join(*folders, name + ".txt")


def _read_object(words: list[str], size: tuple[int, int], num_classes: int) -> dict[str, Any]:
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        message = f"it has {len(words)} values; an object is class, x, y, width, height"
        hint = "or a class and a polygon" if len(words) != 6 else "a sixth is a prediction's score"
        raise DatasetError(f"{message} ({hint}); correct it", "bad box")
    numbers = [to_number(word, "a value") for word in words]
    if not numbers[0].is_integer() or not 0 <= numbers[0] < num_classes:
        message = f"class {show(words[0])} is none of the {num_classes} classes, 0 to"
        raise DatasetError(f"{message} {num_classes - 1}; correct it, or names", "unknown class")
    if max(map(abs, numbers[1:])) > 2:
        message = f"{show(' '.join(words[1:5]))} are no fractions of the image"
        raise DatasetError(f"{message}; divide pixels by its width and height", "bad box")
    hint = "remove or redraw it"
    if len(words) > 5:
        points = _pixels(numbers[1:], size)
        xs, ys = points[::2], points[1::2]
        box = clip_box((min(xs), min(ys), max(xs), max(ys)), size, "polygon", hint)
        return {**make_annotation(box, int(numbers[0]), 0), "segmentation": [points]}
    x, y, width, height = numbers[1:]
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    box = clip_box(_pixels(corners, size), size, f"box {show(' '.join(words[1:]))}", hint)
    return make_annotation(box, int(numbers[0]), 0)


def _pixels(fractions: Sequence[float], size: tuple[int, int]) -> list[float]:
    return [round(value * size[n % 2], _DECIMALS) for n, value in enumerate(fractions)]
