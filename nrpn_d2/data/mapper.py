"""Dataset dict -> model input, with difficult objects marked "ignore"."""

import zlib

from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError
from PIL import Image

from .voc.xml import VOCError

# ValueError: a side of less than half a pixel, when a long strip is made to fit
_UNREADABLE = (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError)


class VOCDatasetMapper(DatasetMapper):
    """Detectron2's mapper for records that have a ``difficult`` flag.

    In training a difficult object gets ``gt_classes == -1``, Detectron2's own mark for "neither
    object nor background": stock ROI heads sample no proposal that is matched to it, and
    ``HardNegativeRPN`` ignores the anchors over it.
    """

    def __call__(self, dataset_dict):
        """See the base class.

        Raises:
            VOCError: the pixels of the image cannot be decoded, are too long a strip to be resized,
                or have changed their number.
        """
        if self.is_train and "annotations" in dataset_dict:
            annotations = [
                {**annotation, "category_id": -1} if annotation.get("difficult") else annotation
                for annotation in dataset_dict["annotations"]
            ]
            dataset_dict = {**dataset_dict, "annotations": annotations}
        try:
            return super().__call__(dataset_dict)
        except SizeMismatchError as error:  # names the file
            remedy = "the file has changed since its header was read; start again"
            raise VOCError(f"{error} {remedy}", "wrong size") from error
        except _UNREADABLE as error:
            message = f"{dataset_dict['file_name']}: the image cannot be decoded or resized"
            remedy = "replace the file, or delete its id from the split"
            raise VOCError(f"{message} ({error}); {remedy}", "unreadable image") from error
