"""A trained model from a config file and a checkpoint, and what it finds in one image."""

from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import nn

from ..checkpoint.checkpointer import set_pixels
from ..checkpoint.trained_model import load_model  # noqa: F401
from ..config import add_nrpn_config
from ..config_checks import check_nrpn_config
from ..utils.config_file import merge_config_file


def load_config(config_file: str, opts: Sequence[str] = ()) -> CfgNode:
    """The config of the file and of ``KEY VALUE`` pairs, with the pixels of its weights, frozen.

    Without a GPU, MODEL.DEVICE is the CPU.
    """
    cfg = get_cfg()
    add_nrpn_config(cfg)
    merge_config_file(cfg, config_file)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    cfg.merge_from_list([o for o in opts if o != "--"])
    set_pixels(cfg)
    cfg.freeze()
    check_nrpn_config(cfg)
    return cfg


def class_names(cfg: CfgNode) -> list[str]:
    """Those of the data that the model was made for; numbers if they are not known."""
    names = list(cfg.DATASETS.VOC_CLASSES)
    if not names and cfg.DATASETS.TEST:
        names = MetadataCatalog.get(cfg.DATASETS.TEST[0]).get("thing_classes", [])
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    return list(names) if len(names) == count else [str(i) for i in range(count)]


class Predictor:
    """Resizes an image as in evaluation, and runs the model on it."""

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self.model = model
        size = cfg.INPUT.MIN_SIZE_TEST
        self.resize = T.ResizeShortestEdge([size, size], cfg.INPUT.MAX_SIZE_TEST)

    def inputs(self, image: np.ndarray) -> dict[str, Any]:
        """(H, W, 3) uint8, in the order of INPUT.FORMAT -> the model's input."""
        height, width = image.shape[:2]
        resized = self.resize.get_transform(image).apply_image(image)
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    @torch.no_grad()
    def detect(self, image: np.ndarray) -> Instances:
        """
        Returns:
            "pred_boxes" in pixels of the image, "scores", "pred_classes"; best first.

        Raises:
            TypeError: for a ``ProposalNetwork``.
        """
        if not isinstance(self.model, GeneralizedRCNN):
            raise TypeError(f"a {type(self.model).__name__} detects nothing, it only proposes")
        return self.model([self.inputs(image)])[0]["instances"]

    @torch.no_grad()
    def propose(self, image: np.ndarray) -> Instances:
        """
        Returns:
            "proposal_boxes" in pixels of the image and "objectness_logits", best first.
        """
        inputs = self.inputs(image)
        if not isinstance(self.model, GeneralizedRCNN):
            return self.model([inputs])[0]["proposals"]
        images = self.model.preprocess_image([inputs])
        features = self.model.backbone(images.tensor)
        proposals, _ = self.model.proposal_generator(images, features, None)
        return detector_postprocess(proposals[0], inputs["height"], inputs["width"])
