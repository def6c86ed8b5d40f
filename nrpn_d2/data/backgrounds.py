"""Lists of images that show no object -> Detectron2's standard dataset dicts.

A text file has one image per line, relative to its own folder or to one that is given, with "/".
tools/mine_backgrounds.py writes such lists.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from .faults import DatasetError, show
from .reading import (
    Dataset,
    ReadImage,
    make_record,
    read_header,
    read_lines,
    read_records,
    stays_inside,
)


def background_datasets(name: str, paths: Sequence[str], settings: CfgNode) -> dict[str, Dataset]:
    """Find the dataset ``<name>`` of a list; its classes are those of the datasets beside it.

    Args:
        paths: the list and, if that is not its own, the folder of the images.
    """
    root = paths[1] if len(paths) == 2 else os.path.dirname(paths[0])
    load = functools.partial(read_backgrounds, paths[0], root, settings.ON_ERROR)
    return {name: Dataset(load, {"is_background": True})}


def read_backgrounds(path: str, root: str, on_error: str = "error") -> list[dict[str, Any]]:
    """Read a list of images without objects; no path leads out of ``root``.

    Returns:
        One dict per image, as of :func:`read_voc`, without annotations.

    Raises:
        DatasetError: the first fault. With "skip" only for what leaves nothing to read.
    """
    files, faults = {}, []
    for number, line in enumerate(read_lines(path, "correct the list of images"), start=1):
        where = f"{path}: line {number}: {show(line)}"
        if line and not stays_inside(line):
            faults.append(DatasetError(f"{where} leads out of {root}; correct the path", "bad id"))
        elif line in files:
            faults.append(DatasetError(f"{where} is listed twice; delete a line", "duplicate id"))
        elif line:
            files[line] = number
    read_one = functools.partial(_read_image, path, root)
    return read_records(read_one, list(files), path, on_error, faults)


def _read_image(listed_in: str, root: str, file: str) -> ReadImage:
    path = os.path.join(root, file)
    return ReadImage(make_record(path, file, read_header(path, listed_in).oriented_size, []))
