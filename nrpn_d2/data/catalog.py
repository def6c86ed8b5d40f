"""Names in Detectron2's catalogs for VOC, for the user's own folder and for ``shapes``."""

import difflib
import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES as VOC_CLASSES

from .shapes.dataset import SHAPES_CLASSES, make_shapes
from .voc.layout import check_voc_folder, list_splits
from .voc.reader import check_on_error, read_voc
from .voc.xml import VOCError, check_class_names

__all__ = ["register_voc", "register_datasets", "check_datasets"]

logger = logging.getLogger(__name__)

# name -> folder below $DETECTRON2_DATASETS, split, year
_BUILTIN = {
    **{
        f"nrpn_voc_2007_{split}": ("VOC2007", split, 2007)
        for split in ("train", "val", "trainval", "test")
    },
    **{
        f"nrpn_voc_2012_{split}": ("VOC2012", split, 2012) for split in ("train", "val", "trainval")
    },
    **{f"shapes_{split}": ("shapes", split, 2012) for split in ("train", "test")},
}
_registered: dict[str, Callable] = {}  # by this module: name -> what DatasetCatalog has


def register_voc(
    name: str,
    root: str,
    split: str,
    class_names: Sequence[str],
    year: int = 2007,
    on_error: str = "error",
) -> None:
    """Registers one split of a folder in VOC layout; it is read when it is first used.

    Registering the same name again replaces it.

    Args:
        name: the dataset's name in ``DatasetCatalog`` and ``MetadataCatalog``.
        root: the folder; ``~`` and environment variables are expanded.
        split, class_names, on_error: see :func:`read_voc`.
        year: 2007 selects the 11-point AP in the evaluation, any later year the area.

    Raises:
        VOCError: bad class names, an unset environment variable in ``root``, or a name that other
            code has registered.
    """
    class_names = check_class_names(class_names)
    root = _expand(root)
    load = functools.partial(read_voc, root, split, class_names, on_error)
    _register(name, load, thing_classes=class_names, dirname=root, split=split, year=year)


def register_datasets(cfg: CfgNode | None = None) -> None:
    """Registers every dataset of this package; may be called again, e.g. with the final config.

    ``nrpn_voc_2007_{train,val,trainval,test}`` and ``nrpn_voc_2012_{train,val,trainval}`` are the
    folders VOC2007 and VOC2012 below ``$DETECTRON2_DATASETS`` (default: "datasets"), the same
    that Detectron2's ``voc_2007_*`` read. ``shapes_{train,test}`` are made on first use in the
    folder shapes beside them. With a config, ``<VOC_NAME>_<split>`` is every split in
    ``DATASETS.VOC_ROOT``.

    Raises:
        VOCError: see :func:`register_voc`; or the config's folder is not in VOC layout.
    """
    on_error = cfg.DATASETS.VOC_ON_ERROR if cfg is not None else "error"
    check_on_error(on_error)
    datasets = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    for name, (folder, split, year) in _BUILTIN.items():
        root = os.path.join(datasets, folder)
        if folder == "shapes":
            classes, load = SHAPES_CLASSES, functools.partial(_read_shapes, root, split)
        else:
            classes, load = VOC_CLASSES, functools.partial(_read_voc, root, split, on_error)
        _register(name, load, thing_classes=list(classes), dirname=root, split=split, year=year)
    if cfg is not None and (cfg.DATASETS.VOC_NAME or cfg.DATASETS.VOC_ROOT):
        _register_own_folder(cfg.DATASETS)


def check_datasets(cfg: CfgNode, eval_only: bool = False) -> None:
    """Checks that the config's datasets are registered, and that its model has their classes.

    A model with more classes than a dataset to train on gives a warning.

    Raises:
        VOCError: naming the dataset, and the key to correct.
    """
    for key in ("TEST",) if eval_only else ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                likely = difflib.get_close_matches(name, DatasetCatalog.list(), n=1)
                hint = f"did you mean {likely[0]!r}? " if likely else ""
                message = f"DATASETS.{key} names {name!r}, and there is no such dataset; {hint}"
                raise VOCError(f"{message}VOC_NAME, VOC_ROOT and the names of the splits decide")
            classes = len(MetadataCatalog.get(name).get("thing_classes", ()))
            if cfg.MODEL.META_ARCHITECTURE != "ProposalNetwork":
                _check_num_classes(key, name, classes, cfg.MODEL.ROI_HEADS.NUM_CLASSES)


def _check_num_classes(key: str, name: str, classes: int, of_model: int) -> None:
    if classes in (0, of_model):
        return
    message = f"MODEL.ROI_HEADS.NUM_CLASSES is {of_model}, and {name!r} has {classes} classes"
    # Class number `of_model` would be learned as background; the evaluators do not know those over
    # `classes`
    if classes > of_model or key == "TEST":
        raise VOCError(f"{message}; make the two equal")
    logger.warning(message)


def _register_own_folder(settings: CfgNode) -> None:
    for key in ("VOC_NAME", "VOC_ROOT", "VOC_CLASSES"):
        if not settings[key]:
            message = f"DATASETS.{key} is empty"
            raise VOCError(f"{message}; a folder of your own needs VOC_NAME, VOC_ROOT, VOC_CLASSES")
    classes = check_class_names(settings.VOC_CLASSES)
    root = _expand(settings.VOC_ROOT)
    check_voc_folder(root)
    for split in list_splits(root, classes):
        name = f"{settings.VOC_NAME}_{split}"
        if name in _BUILTIN:
            raise VOCError(f"dataset {name!r} is already registered; change DATASETS.VOC_NAME")
        register_voc(name, root, split, classes, year=2012, on_error=settings.VOC_ON_ERROR)


def _read_voc(root: str, split: str, on_error: str) -> list[dict[str, Any]]:
    if not os.path.isdir(root):
        message = f"{root}: there is no such folder; extract VOC there, or set DETECTRON2_DATASETS"
        now = os.environ.get("DETECTRON2_DATASETS")
        raise VOCError(
            f"{message} (now {now!r}) to the folder that contains {os.path.basename(root)}"
        )
    return read_voc(root, split, VOC_CLASSES, on_error)


def _read_shapes(root: str, split: str) -> list[dict[str, Any]]:
    return read_voc(make_shapes(root), split, SHAPES_CLASSES)


def _expand(path: str) -> str:
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "$" in expanded and not os.path.exists(expanded):
        raise VOCError(f"{path}: an environment variable in this path is not set; set it")
    return expanded


def _register(name: str, load: Callable, **metadata: Any) -> None:
    if name in DatasetCatalog:
        if DatasetCatalog[name] is not _registered.get(name):
            message = f"dataset {name!r} is already registered by other code"
            raise VOCError(f"{message}; choose another name (DATASETS.VOC_NAME)")
        DatasetCatalog.remove(name)
    # Detectron2's metadata refuse a second value for a key.
    MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="voc_layout", **metadata)
    _registered[name] = load
