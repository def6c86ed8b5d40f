"""Small models and batches, built in well under a second on a CPU."""

import torch
from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances, PolygonMasks

from nrpn_d2 import add_nrpn_config


def small_cfg(backbone="vgg", meta_architecture="GeneralizedRCNN", **overrides):
    """A config of a small VGG (stride 8) or R18-FPN model on the CPU.

    Keyword arguments override keys; "__" stands for the dot: ``MODEL__NRPN__WARMUP_ITERS=0``.
    """
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = meta_architecture
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "HardNegativeRPN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 64
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50
    cfg.MODEL.NRPN.BATCH_SIZE_PER_IMAGE = 64
    cfg.MODEL.NRPN.WARMUP_ITERS = 0
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    if backbone == "vgg":
        cfg.MODEL.BACKBONE.NAME = "build_vgg_backbone"
        cfg.MODEL.VGG.DEPTHS = [1, 1, 1, 1]
        cfg.MODEL.VGG.WIDTHS = [8, 8, 16, 16]
        cfg.MODEL.VGG.OUT_FEATURES = ["conv4"]
        cfg.MODEL.VGG.FC_DIM = 32
        cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["conv4"]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16, 32, 64]]
        cfg.MODEL.ROI_BOX_HEAD.NAME = "VGGBoxHead"
        cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIPool"
    else:
        cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.OUT_CHANNELS = 16
        cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
        cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
        cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
        cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
        cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    for key, value in overrides.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def instances(boxes, classes=None, size=(96, 128)):
    """Ground truth of one image; class -1 marks a difficult object."""
    gt = Instances(size)
    gt.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).view(-1, 4))
    gt.gt_classes = torch.tensor([0] * len(boxes) if classes is None else classes).long()
    return gt


def with_masks(gt):
    """Give each object a triangle as its mask."""
    polygons = [[torch.tensor([a, b, c, b, c, d]).double().numpy()] for a, b, c, d in gt.gt_boxes]
    gt.gt_masks = PolygonMasks(polygons)
    return gt


def batch(*gts, seed=0):
    """Model input: one random image for each of ``gts``."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.randint(0, 256, (3, *gt.image_size), generator=generator).byte(),
            "instances": gt,
            "height": gt.image_size[0],
            "width": gt.image_size[1],
        }
        for gt in gts
    ]


TWO_OBJECTS = [[10, 12, 40, 50], [60, 20, 120, 80]]
