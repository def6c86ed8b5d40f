# ../voc_nrpn_R50_FPN.yaml as a LazyConfig; see voc_nrpn_vgg16.py
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.roi_heads import FastRCNNConvFCHead

from .voc_nrpn_vgg16 import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(FPN)(
    bottom_up=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
        out_features=["res2", "res3", "res4", "res5"],
        freeze_at=2,
    ),
    in_features="${.bottom_up.out_features}",
    out_channels=256,
    top_block=L(LastLevelMaxPool)(),
)
model.pixel_mean = [103.53, 116.28, 123.675]
model.pixel_std = [1.0, 1.0, 1.0]
model.input_format = "BGR"

_rpn = model.proposal_generator
_rpn.in_features = ["p2", "p3", "p4", "p5", "p6"]
_rpn.head.update(in_channels=256, num_anchors=3)
_rpn.anchor_generator.sizes = [[32], [64], [128], [256], [512]]
_rpn.anchor_generator.strides = [4, 8, 16, 32, 64]
_rpn.pre_nms_topk = (2000, 1000)
_rpn.post_nms_topk = (1000, 1000)
_rpn.warmup_iters = 1036

_heads = model.roi_heads
_heads.batch_size_per_image = 512
_heads.proposal_matcher.update(thresholds=[0.5], labels=[0, 1])
_heads.box_in_features = ["p2", "p3", "p4", "p5"]
_heads.box_pooler.update(scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32), pooler_type="ROIAlignV2")
_heads.box_head = L(FastRCNNConvFCHead)(
    input_shape=ShapeSpec(channels=256, height=7, width=7), conv_dims=[], fc_dims=[1024, 1024]
)
_heads.box_predictor.input_shape = ShapeSpec(channels=1024)
_heads.box_predictor.update(smooth_l1_beta=0.0, test_nms_thresh=0.5)

dataloader.train.dataset.names = ["nrpn_voc_2007_trainval", "nrpn_voc_2012_trainval"]
dataloader.train.mapper.augmentations[0].update(
    short_edge_length=tuple(range(480, 801, 32)), max_size=1333
)
dataloader.train.total_batch_size = 16
dataloader.test.mapper.augmentations[0].update(short_edge_length=800, max_size=1333)

optimizer.lr = 0.02
optimizer.weight_decay = 0.0001
lr_multiplier.scheduler.update(values=[1.0, 0.1, 0.01], milestones=[12000, 16000, 18000])
lr_multiplier.warmup_length = 100 / 18000
train.update(
    output_dir="output/lazy_voc_nrpn_R50_FPN",
    init_checkpoint="detectron2://ImageNetPretrained/MSRA/R-50.pkl",
    max_iter=18000,
    eval_period=6000,
)
train["checkpointer"]["period"] = 5000
