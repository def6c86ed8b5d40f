"""Dataset dict -> model input, with difficult and crowd objects as boxes to ignore."""

import logging
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError, read_image

from ..modeling.ignored import set_ignored_aside
from ..modeling.labels import withhold_ignored
from .faults import DatasetError
from .reading import absolute_box, is_ignored

_STRIP = 100  # longer side / shorter side, over which no resizing is expected to work


class VOCDatasetMapper(DatasetMapper):
    """Detectron2's mapper for records with ``difficult`` (VOC) or ``iscrowd`` (COCO) objects.

    In training such an object is no ground truth but a box to ignore (``GroundTruth``):
    ``HardNegativeRPN`` keeps anchors and proposals on it out of the losses, and any ROI head works.
    Proposals of a file that lie on it are left out here.
    """

    @configurable
    def __init__(
        self, is_train: bool, *, background_iou: float = 0.3, ignore_ioa: float = 0.5, **kwargs: Any
    ):
        """
        Args:
            background_iou, ignore_ioa: a proposal lies on a box if its IoU is at least the one, or
                this fraction of its area is inside.
            kwargs: those of Detectron2's ``DatasetMapper``.
        """
        super().__init__(is_train, **kwargs)
        self.background_iou = background_iou
        self.ignore_ioa = ignore_ioa

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        ret = super().from_config(cfg, is_train)
        ret["background_iou"] = cfg.MODEL.RPN.IOU_THRESHOLDS[0]
        if "NRPN" in cfg.MODEL:
            ret["ignore_ioa"] = cfg.MODEL.NRPN.IGNORE_IOA
        return ret

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """See the base class.

        Raises:
            DatasetError: the image cannot be decoded, is too long a strip to be resized, or has
                another size than its record.
        """
        ignores = self.is_train and "annotations" in dataset_dict
        if ignores:
            annotations = self._mark_ignored(dataset_dict["annotations"])
            dataset_dict = {**dataset_dict, "annotations": annotations}
        try:
            mapped = super().__call__(dataset_dict)
        except SizeMismatchError as error:  # names the file
            remedy = "the file has changed since its header was read; start again"
            raise DatasetError(f"{error} {remedy}", "wrong size") from error
        except Exception as error:
            self._check_image(dataset_dict["file_name"], error)
            logger = logging.getLogger(__name__)
            logger.error("%s: the image is readable; mapping it failed", dataset_dict["file_name"])
            raise  # of an augmentation, for example
        if ignores:
            gt = mapped["instances"] = set_ignored_aside(mapped["instances"])
            if "proposals" in mapped:
                limits = self.background_iou, self.ignore_ioa
                (mapped["proposals"],) = withhold_ignored([mapped["proposals"]], [gt], *limits)
        return mapped

    def _mark_ignored(self, annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give difficult and crowd objects the class -1, and shapes for those that they may lack.

        Detectron2 takes a mask or keypoints from all objects of an image, or from none; of a crowd,
        the mask may have a form (RLE) that those of the others have not.
        """
        keypoints = max((len(obj.get("keypoints", ())) for obj in annotations), default=0)
        marked = []
        for obj in annotations:
            if is_ignored(obj):
                obj = {**obj, "category_id": -1, "iscrowd": 0}  # Detectron2 drops crowds
                if self.use_instance_mask:
                    x0, y0, x1, y1 = absolute_box(obj)
                    obj["segmentation"] = [[x0, y0, x1, y0, x1, y1, x0, y1]]
                if self.use_keypoint and keypoints:
                    obj["keypoints"] = [0] * keypoints
            marked.append(obj)
        return marked

    def _check_image(self, path: str, error: Exception) -> None:
        """Raise DatasetError if the image is the cause of an error.

        The image is decoded once more: what else the base class does may fail with any error.
        """
        remedy = "replace the file, or delete it from the dataset"
        try:
            height, width = read_image(path, self.image_format).shape[:2]
        except Exception as unreadable:
            message = f"{path}: the image cannot be decoded ({unreadable}); {remedy}"
            raise DatasetError(message, "unreadable image") from error
        if isinstance(error, ValueError) and max(height, width) > _STRIP * min(height, width):
            message = f"{path}: the image of {width} x {height} pixels cannot be resized ({error})"
            raise DatasetError(f"{message}; {remedy}", "unreadable image") from error


def annotated_mapper(cfg: CfgNode) -> VOCDatasetMapper:
    """Return the mapper of test images that keeps their objects, for losses and pictures."""
    mapper = VOCDatasetMapper(cfg, is_train=False)
    mapper.is_train = True
    return mapper
