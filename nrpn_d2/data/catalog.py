"""Names in Detectron2's catalogs for VOC, for ``shapes`` and for the user's own data."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES as VOC_CLASSES

from .backgrounds import background_datasets
from .coco import coco_datasets
from .faults import DatasetError, check_class_names, show
from .folds import fold_dataset
from .reading import Dataset, Records
from .shapes.dataset import SHAPES_CLASSES, make_shapes
from .voc.reader import read_voc, voc_dataset, voc_datasets, voc_on_error
from .yolo import yolo_datasets

# How the path of the user's data ends -> its format. The function gets the name, the paths and
# cfg.DATASETS, and returns each dataset by its name. A format is a module and a line here
FORMATS: dict[str, Callable[[str, Sequence[str], CfgNode], dict[str, Dataset]]] = {
    "": voc_datasets,  # a folder
    ".json": coco_datasets,
    ".yaml": yolo_datasets,
    ".yml": yolo_datasets,
    ".txt": background_datasets,
}
# name -> folder below $DETECTRON2_DATASETS, split, year
_BUILTIN = {
    f"nrpn_voc_{year}_{split}": (f"VOC{year}", split, year)
    for year in (2007, 2012)
    for split in ("train", "val", "trainval", "test")
    if (year, split) != (2012, "test")  # whose labels are secret
}
_BUILTIN |= {f"shapes_{split}": ("shapes", split, 2012) for split in ("train", "test")}
_registered: dict[str, Callable] = {}  # by this module: name -> what DatasetCatalog has


def register_voc(
    name: str,
    root: str,
    split: str,
    class_names: Sequence[str],
    year: int = 2007,
    on_error: str = "error",
) -> None:
    """Register one split of a folder in VOC layout; it is read when it is first used.

    Registering the same name again replaces it.

    Args:
        name: the dataset's name in ``DatasetCatalog`` and ``MetadataCatalog``.
        root: the folder; ``~`` and environment variables are expanded.
        split, class_names, on_error: see :func:`read_voc`.
        year: 2007 selects the 11-point AP in the evaluation, any later year the area.

    Raises:
        DatasetError: bad class names, an unset environment variable in ``root``, or a name that
            other code has registered.
    """
    classes = check_class_names(class_names)
    _register(name, voc_dataset(_expand(root), split, classes, on_error, year))


def register_datasets(cfg: CfgNode | None = None) -> None:
    """Register every dataset of this package; may be called again, e.g. with the final config.

    ``nrpn_voc_2007_{train,val,trainval,test}`` and ``nrpn_voc_2012_{train,val,trainval}`` are the
    folders VOC2007 and VOC2012 below ``$DETECTRON2_DATASETS`` (default: "datasets"), the same
    that Detectron2's ``voc_2007_*`` read. ``shapes_{train,test}`` are made on first use in the
    folder shapes beside them. With a config, the user's own data, ``DATASETS.OWN`` and
    ``DATASETS.VOC_ROOT``, are registered, too, and the folds that it names (folds.py).

    Raises:
        DatasetError: the config's data have no known format, or a name is taken.
    """
    on_error = voc_on_error(cfg.DATASETS) if cfg is not None else "error"
    datasets = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    for name, (folder, split, year) in _BUILTIN.items():
        root = os.path.join(datasets, folder)
        classes = SHAPES_CLASSES if folder == "shapes" else VOC_CLASSES
        load = functools.partial(_read_builtin, root, split, classes, on_error)
        _register(name, voc_dataset(root, split, classes, on_error, year)._replace(load=load))
    if cfg is not None:
        for name, dataset in _own_datasets(cfg.DATASETS).items():
            _register(name, dataset)
        for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
            fold = fold_dataset(name) if name not in DatasetCatalog or name in _registered else None
            if fold:
                _register(name, fold)


def _own_datasets(settings: CfgNode) -> dict[str, Dataset]:
    """Find the user's datasets, by their names; none is read yet."""
    own: list[Any] = list(settings.OWN)
    if settings.VOC_NAME or settings.VOC_ROOT:
        for key in ("VOC_NAME", "VOC_ROOT"):
            if not settings[key]:
                raise DatasetError(f"DATASETS.{key} is empty; VOC_NAME and VOC_ROOT go together")
        own.append([settings.VOC_NAME, settings.VOC_ROOT])
    datasets: dict[str, Dataset] = {}
    for entry in own:
        is_list = isinstance(entry, (list, tuple)) and len(entry) in (2, 3)
        if not is_list or not all(isinstance(part, str) and part for part in entry):
            message = f"DATASETS.OWN has {show(entry)}; give [name, path] or [name, path, folder]"
            raise DatasetError(f"{message}, as in \"[['mine', '/data/mine/data.yaml']]\"")
        name, *paths = entry
        paths = [_expand(path) for path in paths]
        suffix = "" if os.path.isdir(paths[0]) else os.path.splitext(paths[0])[1].lower() or None
        if suffix not in FORMATS:
            endings = ", ".join(filter(None, FORMATS))
            message = f"{paths[0]}: there is no such folder; correct the path of {name!r}"
            raise DatasetError(f"{message} (files end in {endings})")
        for full_name, dataset in FORMATS[suffix](name, paths, settings).items():
            if full_name in datasets or full_name in _BUILTIN:
                raise DatasetError(f"dataset {full_name!r} is already registered; rename this one")
            datasets[full_name] = dataset
    return datasets


def _read_builtin(root: str, split: str, class_names: Sequence[str], on_error: str) -> Records:
    folder = os.path.basename(root)
    if folder == "shapes":
        make_shapes(root)
    elif not os.path.isdir(root):
        message = f"{root}: there is no such folder; extract VOC there, or set DETECTRON2_DATASETS"
        raise DatasetError(f"{message} to the folder that contains {folder}")
    return read_voc(root, split, class_names, on_error)


def _expand(path: str) -> str:
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "$" in expanded and not os.path.exists(expanded):
        raise DatasetError(f"{path}: an environment variable in this path is not set; set it")
    return expanded


def _register(name: str, dataset: Dataset) -> None:
    if name in DatasetCatalog:
        if DatasetCatalog[name] is not _registered.get(name):
            message = f"dataset {name!r} is already registered by other code"
            raise DatasetError(f"{message}; choose another name (DATASETS.OWN, DATASETS.VOC_NAME)")
        DatasetCatalog.remove(name)
    # Detectron2's metadata refuse a second value for a key
    MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, dataset.load)
    MetadataCatalog.get(name).set(**dataset.metadata)
    _registered[name] = dataset.load
