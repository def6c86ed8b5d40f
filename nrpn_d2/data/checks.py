"""Whether a config's datasets exist and fit its model."""

import logging

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from .faults import DatasetError, did_you_mean

logger = logging.getLogger(__name__)


def check_datasets(cfg: CfgNode, eval_only: bool = False) -> None:
    """Check that the config's datasets are registered, and that its model has their classes.

    A model with more classes than a dataset to train on gives a warning.

    Raises:
        DatasetError: naming the dataset, and the key to correct.
    """
    for key in ("TEST",) if eval_only else ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                hint = did_you_mean(name, DatasetCatalog.list())
                message = f"DATASETS.{key} names {name!r}, and there is no such dataset; {hint}"
                raise DatasetError(f"{message}Correct it, or DATASETS.OWN or VOC_NAME and VOC_ROOT")
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
        raise DatasetError(f"{message}; make the two equal")
    logger.warning("%s", message)
