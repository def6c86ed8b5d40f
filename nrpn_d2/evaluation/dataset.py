"""The one dataset that a tool works on: a registered name, or a file in COCO's format."""

import difflib
import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances


def find_dataset(
    cfg: CfgNode, name: str | None = None, json_file: str | None = None, image_folder: str = ""
) -> str:
    """Return the name in DatasetCatalog of what a command line asks for.

    Args:
        cfg: its DATASETS.TEST is the default, if that is one name.
        name: a registered name.
        json_file: objects in COCO's format; registered under the file's name.
        image_folder: of the images of ``json_file``.

    Raises:
        ValueError: no dataset, several, or one that is not registered.
    """
    if json_file:
        if name:
            raise ValueError(f"--dataset {name} and --json {json_file} exclude each other")
        return _register_coco(json_file, image_folder)
    names = [name] if name else list(cfg.DATASETS.TEST)
    if len(names) != 1:
        raise ValueError(f"name one dataset with --dataset: DATASETS.TEST is {names}")
    if names[0] not in DatasetCatalog:
        likely = difflib.get_close_matches(names[0], DatasetCatalog.list(), n=3)
        hint = f"; did you mean {' or '.join(map(repr, likely))}?" if likely else ""
        raise ValueError(f"dataset {names[0]!r} is not registered{hint}")
    return names[0]


def _register_coco(json_file: str, image_folder: str) -> str:
    if not os.path.isfile(json_file):
        raise ValueError(f"--json {json_file}: no such file")
    name = os.path.splitext(os.path.basename(json_file))[0]
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_coco_instances(name, {}, json_file, image_folder)
    try:
        DatasetCatalog.get(name)  # the classes become known when it is read
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as e:
        raise ValueError(
            f"--json {json_file} does not hold images, annotations and categories in COCO's "
            f"format: {e!r}"
        ) from e
    return name
