"""The folders and lists of the PASCAL VOC layout.

root/ImageSets/Main/<split>.txt    one image id per line
root/JPEGImages/<id>.jpg           or .jpeg or .png, in upper or lower case
root/Annotations/<id>.xml          none for a background image
"""

import glob
import os
from collections.abc import Sequence

from ..faults import DatasetError
from ..reading import image_files, read_lines, stays_inside

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def check_voc_folder(root: str) -> None:
    """Raise DatasetError unless the folder exists and has the three folders of the VOC layout."""
    if not os.path.isdir(root):
        raise DatasetError(f"{root}: there is no such folder; correct the path of the dataset")
    for part in ("ImageSets/Main", "JPEGImages", "Annotations"):
        if not os.path.isdir(os.path.join(root, *part.split("/"))):
            message = f"{root}: it has no folder {part}, so it is not in VOC layout"
            raise DatasetError(f"{message}; give the folder that directly contains {part}")


def read_split(path: str, files: dict[str, Sequence[str]]) -> tuple[list[str], list[DatasetError]]:
    """Read the ids of a split file.

    Args:
        files: the ids that have images.

    Returns:
        The ids in the file's order without repetitions, and a DatasetError for each repetition and
        for each id that would lead out of the folder.

    Raises:
        DatasetError: the file is missing, not UTF-8, or lists nothing.
    """
    lines = read_lines(path, "correct the name of the split, or its file")
    ids, faults = {}, []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        image_id = line if line in files else line.split()[0]
        where = f"{path}: line {number}: id {image_id[:80]!r}"
        if not stays_inside(image_id):
            message = f"{where} is not the name of a file below JPEGImages; correct the id"
            faults.append(DatasetError(message, "bad id"))
        elif image_id in ids:
            message = f"{where} is already on line {ids[image_id]}; delete one of them"
            faults.append(DatasetError(message, "duplicate id"))
        else:
            ids[image_id] = number
    if not ids and not faults:
        raise DatasetError(f"{path}: the split file lists no image; write one id per line")
    return list(ids), faults


def list_images(folder: str) -> dict[str, list[str]]:
    """Map image ids to the image files of that name, relative to the folder."""
    files: dict[str, list[str]] = {}
    for path in image_files(folder, IMAGE_SUFFIXES):
        files.setdefault(os.path.splitext(path)[0], []).append(path)
    return files


def list_splits(root: str, class_names: Sequence[str]) -> list[str]:
    """Return the names of the id lists in ImageSets/Main, without VOC's ``<class>_<split>.txt``."""
    folder = os.path.join(root, "ImageSets", "Main")
    paths = glob.glob(os.path.join(glob.escape(folder), "*.txt"))
    names = sorted(os.path.splitext(os.path.basename(path))[0] for path in paths)
    per_class = {f"{class_name}_{split}" for class_name in class_names for split in names}
    splits = [name for name in names if name not in per_class]
    if not splits:
        raise DatasetError(f"{folder}: no split in it; write one image id per line into train.txt")
    return splits
