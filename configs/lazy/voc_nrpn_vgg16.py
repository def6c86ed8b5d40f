# ../voc_nrpn_vgg16.yaml as a LazyConfig, for Detectron2's trainer:
#     python detectron2/tools/lazyconfig_train_net.py --config-file configs/lazy/voc_nrpn_vgg16.py
# tests/test_lazy_configs.py compares it with the YAML
import detectron2.data.transforms as T
import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.layers import ShapeSpec
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import OmegaConf

from nrpn_d2 import HardNegativeRPN, NegativeRPN
from nrpn_d2.data import VOCDatasetMapper
from nrpn_d2.evaluation import VOCDetectionEvaluator
from nrpn_d2.modeling.losses import BCE
from nrpn_d2.modeling.negative_rpn import ScoreHead
from nrpn_d2.modeling.samplers import NRPN
from nrpn_d2.modeling.vgg import VGG, VGGBoxHead

model = L(GeneralizedRCNN)(
    backbone=L(VGG)(
        depths=[2, 2, 3, 3, 3],
        widths=[64, 128, 256, 512, 512],
        out_features=["conv5"],
        freeze_at=2,
    ),
    proposal_generator=L(HardNegativeRPN)(
        in_features=["conv5"],
        head=L(StandardRPNHead)(in_channels=512, num_anchors=9),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[128, 256, 512]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[16], offset=0.0
        ),
        anchor_matcher=L(Matcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=(12000, 6000),
        post_nms_topk=(2000, 300),
        nms_thresh=0.7,
        smooth_l1_beta=0.1111,
        # The method. Other miners: find_false_positives=functools.partial(false_positives, ...)
        objectness_loss=L(BCE)(),
        negative_sampler=L(NRPN)(
            batch_size_per_image="${..batch_size_per_image}",
            positive_fraction="${..positive_fraction}",
            hard_fraction=0.25,
        ),
        negative_rpn=L(NegativeRPN)(
            in_features="${..in_features}",
            head=L(ScoreHead)(
                in_channels="${...head.in_channels}", num_anchors="${...head.num_anchors}"
            ),
            backbone="${...backbone}",  # another one like it; None: a head on the RPN's features
        ),
        nrpn_sampler=L(NRPN)(batch_size_per_image=256, positive_fraction=0.5, hard_fraction=0.5),
        warmup_iters=5011,
    ),
    roi_heads=L(StandardROIHeads)(
        num_classes=20,
        batch_size_per_image=128,
        positive_fraction=0.25,
        proposal_matcher=L(Matcher)(
            thresholds=[0.1, 0.5], labels=[-1, 0, 1], allow_low_quality_matches=False
        ),
        box_in_features=["conv5"],
        box_pooler=L(ROIPooler)(
            output_size=7, scales=(1 / 16,), sampling_ratio=0, pooler_type="ROIPool"
        ),
        box_head=L(VGGBoxHead)(
            input_shape=ShapeSpec(channels=512, height=7, width=7), fc_dim=4096, dropout=0.5
        ),
        box_predictor=L(FastRCNNOutputLayers)(
            input_shape=ShapeSpec(channels=4096),
            box2box_transform=L(Box2BoxTransform)(weights=(10.0, 10.0, 5.0, 5.0)),
            num_classes="${..num_classes}",
            smooth_l1_beta=1.0,
            loss_weight=dict(loss_box_reg=1.0),
            test_score_thresh=0.05,
            test_nms_thresh=0.3,
        ),
    ),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)

dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names=["nrpn_voc_2007_trainval"], filter_empty=False),
    mapper=L(VOCDatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=(600,), max_size=1000, sample_style="choice"),
            L(T.RandomFlip)(),
        ],
        image_format="${....model.input_format}",
    ),
    total_batch_size=1,
    num_workers=4,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="nrpn_voc_2007_test", filter_empty=False),
    mapper=L(VOCDatasetMapper)(
        is_train=False,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=600, max_size=1000, sample_style="choice")
        ],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=4,
)
dataloader.evaluator = L(VOCDetectionEvaluator)(dataset_name="${..test.dataset.names}")

optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),  # params.model: the trainer
    lr=0.001,
    momentum=0.9,
    weight_decay=0.0005,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[70154, 100220]),
    warmup_length=500 / 100220,
    warmup_method="linear",
    warmup_factor=0.001,
)
train = dict(
    output_dir="output/lazy_voc_nrpn_vgg16",
    init_checkpoint="torchvision://vgg16",
    max_iter=100220,
    amp=dict(enabled=False),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5011, max_to_keep=3),
    eval_period=25055,
    log_period=20,
    device="cuda",
)
