"""The annotated objects of a registered dataset as flat arrays."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode


@dataclass(frozen=True)
class GroundTruth:
    """G objects of C classes on N images, in the dataset's order."""

    dataset_name: str
    class_names: list[str]
    image_index: dict[Hashable, int]  # image id -> n in [0, N)
    boxes: np.ndarray  # (G, 4) float64, x0, y0, x1, y1 in pixels
    classes: np.ndarray  # (G,) int in [0, C)
    ignored: np.ndarray  # (G,) bool; difficult or crowd, neither to be found nor an error if found
    crowd: np.ndarray  # (G,) bool, those of the ignored that are a group of objects in one box
    images: np.ndarray  # (G,) int in [0, N), ascending
    file_names: Sequence[str] = ()  # of the N images; "" where the dataset does not say

    def index_of(self, image_id: Hashable) -> int:
        """Return the number n of an image; it is an error if the dataset lacks it."""
        try:
            return self.image_index[image_id]
        except KeyError:
            message = f"image id {image_id!r} is not in dataset '{self.dataset_name}'"
            known = ", ".join(map(repr, list(self.image_index)[:3]))
            raise ValueError(f"{message} ({known}, ...); are the predictions of it?") from None

    def of_image(self, n: int) -> slice:
        """Return the slice of the objects of image n."""
        return slice(*np.searchsorted(self.images, (n, n + 1)))


def load_ground_truth(dataset_name: str) -> GroundTruth:
    """Read the objects of a dataset in Detectron2's standard format, whatever their ``bbox_mode``.

    An annotation with a true ``difficult`` (VOC) or ``iscrowd`` (COCO) is ignored.

    Raises:
        ValueError: an image id occurs twice.
    """
    dicts = DatasetCatalog.get(dataset_name)
    image_index = {record["image_id"]: n for n, record in enumerate(dicts)}
    if len(image_index) != len(dicts):
        raise ValueError(f"dataset '{dataset_name}' has image ids that occur more than once")
    objects = [(n, obj) for n, record in enumerate(dicts) for obj in record.get("annotations", ())]
    boxes = [BoxMode.convert(obj["bbox"], obj["bbox_mode"], BoxMode.XYXY_ABS) for _, obj in objects]
    difficult, crowd = (
        np.array([bool(obj.get(key, 0)) for _, obj in objects], bool)
        for key in ("difficult", "iscrowd")
    )
    return GroundTruth(
        dataset_name=dataset_name,
        class_names=list(MetadataCatalog.get(dataset_name).thing_classes),
        image_index=image_index,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        classes=np.array([obj["category_id"] for _, obj in objects], np.int64),
        ignored=difficult | crowd,
        crowd=crowd & ~difficult,  # a difficult object is one object, however it is marked
        images=np.array([n for n, _ in objects], np.int64),
        file_names=[record.get("file_name", "") for record in dicts],
    )
