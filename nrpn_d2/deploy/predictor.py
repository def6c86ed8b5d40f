"""Run a trained model on images as in evaluation."""

from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from PIL import Image
from torch import nn


def class_names(cfg: CfgNode) -> list[str]:
    """Return the names of the model's classes; numbers if they are not known."""
    names = list(cfg.DATASETS.VOC_CLASSES)
    if not names and cfg.DATASETS.TEST:
        names = MetadataCatalog.get(cfg.DATASETS.TEST[0]).get("thing_classes", [])
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    return list(names) if len(names) == count else [str(i) for i in range(count)]


class Predictor:
    """Resize images as in evaluation, and run the model on them.

    Images are (H, W, C) uint8 in the order of INPUT.FORMAT; boxes are in their pixels.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        if getattr(model, "proposal_generator", model) is None:
            keys = "MODEL.LOAD_PROPOSALS True, MODEL.PROPOSAL_GENERATOR.NAME 'PrecomputedProposals'"
            message = f"the model needs proposals from files ({keys}); images alone do not have"
            raise ValueError(f"{message} them: give the config and weights of a model with an RPN")
        self.model = model
        self.format = cfg.INPUT.FORMAT
        size = cfg.INPUT.MIN_SIZE_TEST
        self.resize = T.ResizeShortestEdge([size, size], cfg.INPUT.MAX_SIZE_TEST)
        backbone = model.backbone
        strides = [shape.stride for shape in backbone.output_shape().values()]
        # Of a backbone that pads its input, every side is long enough
        self.shortest = 1 if backbone.size_divisibility > 1 else max(strides)

    def inputs(self, image: np.ndarray) -> dict[str, Any]:
        """Return the model's input for one image.

        Raises:
            ValueError: for an image too thin for the model, at the size of INPUT.MAX_SIZE_TEST.
        """
        height, width = image.shape[:2]
        transform = self.resize.get_transform(image)
        new_size = getattr(transform, "new_w", width), getattr(transform, "new_h", height)
        if min(new_size) < self.shortest:
            sizes = f"{width} x {height} pixels become {new_size[0]} x {new_size[1]}"
            raise ValueError(f"{sizes}: too thin, the model needs {self.shortest} on each side")
        resized = transform.apply_image(image)
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def inputs_of_rgb(self, image: np.ndarray) -> dict[str, Any]:
        """Return :meth:`inputs` of an RGB image, whatever INPUT.FORMAT is."""
        return self.inputs(convert_PIL_to_numpy(Image.fromarray(image), self.format))

    @torch.no_grad()
    def detect_batch(self, inputs: Sequence[dict[str, Any]]) -> list[Instances]:
        """Return "pred_boxes", "scores" and "pred_classes" of each image, best first."""
        return [outputs["instances"] for outputs in self.model(inputs)]

    @torch.no_grad()
    def propose_batch(self, inputs: Sequence[dict[str, Any]]) -> list[Instances]:
        """Return "proposal_boxes" and "objectness_logits" of each image, best first."""
        # A ProposalNetwork has all that this method needs, but not the method
        images = GeneralizedRCNN.preprocess_image(self.model, inputs)
        features = self.model.backbone(images.tensor)
        proposals, _ = self.model.proposal_generator(images, features, None)
        pairs = zip(proposals, inputs, strict=True)
        return [detector_postprocess(found, x["height"], x["width"]) for found, x in pairs]
