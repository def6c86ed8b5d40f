"""Whether a config's datasets exist and fit its model, and what the model takes from them."""

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from .faults import DatasetError, did_you_mean

logger = logging.getLogger(__name__)


def take_classes(cfg: CfgNode) -> None:
    """Set the number of classes, where it is left at Detectron2's default, and their names.

    They are those of the first dataset to train on, or to evaluate on without one. With the names
    in the config, a model can name what it finds where its data are not.
    """
    datasets = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    names = next(filter(None, map(class_names, datasets)), None)
    if names is None:
        return
    if cfg.MODEL.ROI_HEADS.NUM_CLASSES == get_cfg().MODEL.ROI_HEADS.NUM_CLASSES:
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(names)
    if not cfg.DATASETS.VOC_CLASSES and cfg.DATASETS.OWN:
        cfg.DATASETS.VOC_CLASSES = names
    for name in filter(_is_background, datasets):
        MetadataCatalog.get(name).thing_classes = names


def check_datasets(cfg: CfgNode, eval_only: bool = False) -> None:
    """Check that the config's datasets are registered, and that its model has their classes.

    A model with more classes than a dataset to train on gives a warning.

    Raises:
        DatasetError: naming the dataset, and the key to correct.
    """
    first = None
    for key in ("TEST",) if eval_only else ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            check_registered(name, f"DATASETS.{key}")
            if key == "TRAIN" and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and _is_background(name):
                message = "DATALOADER.FILTER_EMPTY_ANNOTATIONS is True, which leaves out images"
                raise DatasetError(f"{message} without objects, all of {name!r}; set it to False")
            if class_names(name):
                left_out_classes(cfg.DATASETS.LEFT_OUT, class_names(name), name)
            if cfg.MODEL.META_ARCHITECTURE != "ProposalNetwork":
                first = first or name
                _check_classes(key, name, first, cfg.MODEL.ROI_HEADS.NUM_CLASSES)


def check_registered(name: str, origin: str) -> None:
    """Raise DatasetError unless there is a dataset ``name``, which ``origin`` asks for."""
    if name not in DatasetCatalog:
        hint = did_you_mean(name, DatasetCatalog.list())
        message = f"{origin} names {name!r}, and there is no such dataset; {hint}"
        raise DatasetError(f"{message}Correct it, or DATASETS.OWN or VOC_NAME and VOC_ROOT")


def left_out_classes(left_out: Sequence[str], names: Sequence[str], dataset_name: str) -> list[int]:
    """Return the numbers of the classes in DATASETS.LEFT_OUT; raise DatasetError for any other."""
    for name in left_out:
        if name not in names:
            hint = did_you_mean(name, names)
            message = f"DATASETS.LEFT_OUT names {name!r}, which is no class of {dataset_name!r}; "
            raise DatasetError(f"{message}{hint}The classes are {', '.join(names)}")
    return [names.index(name) for name in left_out]


def _check_classes(key: str, name: str, first: str, of_model: int) -> None:
    classes = len(class_names(name))
    message = f"MODEL.ROI_HEADS.NUM_CLASSES is {of_model}, and {name!r} has {classes} classes"
    if classes not in (0, of_model):
        # Class number `of_model` would be learned as background; the evaluators do not know those
        # over `classes`
        if classes > of_model or key == "TEST":
            raise DatasetError(f"{message}; make the two equal, or leave the key out")
        logger.warning("%s", message)
    for number, pair in enumerate(zip(class_names(first), class_names(name))):
        if pair[0] != pair[1]:
            message = f"class {number} is {pair[0]!r} in {first!r} and {pair[1]!r} in {name!r}"
            raise DatasetError(f"{message}; give all datasets the same classes in the same order")


def _is_background(name: str) -> bool:
    """Return whether a dataset is a list of images without objects."""
    return name in DatasetCatalog and bool(MetadataCatalog.get(name).get("is_background"))


def class_names(name: str) -> list[str]:
    """Return the names of a dataset's classes; none if they are not known."""
    if name not in DatasetCatalog:
        return []
    return list(MetadataCatalog.get(name).get("thing_classes", ()))
