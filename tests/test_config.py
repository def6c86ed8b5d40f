"""Bad values fail with the key's name; what is shared by the experiments is shared."""

import glob
import os
import re

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from small_models import small_cfg

from nrpn_d2 import add_nrpn_config, check_nrpn_config
from nrpn_d2.config_checks import check_run_config

CONFIGS = os.path.join(os.path.dirname(__file__), "..", "configs")
EXPERIMENTS = sorted(
    path for path in glob.glob(f"{CONFIGS}/*.yaml") if not os.path.basename(path).startswith("Base")
)


def load(name):
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.merge_from_file(os.path.join(CONFIGS, name))
    return cfg


@pytest.mark.parametrize(
    "key, value",
    [
        ("MODEL.NRPN.FP_SCORE", 1.5),
        ("MODEL.NRPN.FP_IOU", -0.1),
        ("MODEL.NRPN.FP_IOU", float("nan")),
        ("MODEL.NRPN.FP_TOPK", 0),
        ("MODEL.NRPN.FP_BY", "proposals"),
        ("MODEL.NRPN.FALSE_ALARMS", -1),
        ("MODEL.NRPN.WARMUP_ITERS", -1),
        ("MODEL.NRPN.LOSS_WEIGHT", -1.0),
        ("MODEL.NRPN.BATCH_SIZE_PER_IMAGE", 0),
        ("MODEL.NRPN.POSITIVE_FRACTION", 2.0),
        ("MODEL.NRPN.OBJECT_FRACTION", 2.0),
        ("MODEL.NRPN.NMS_THRESH", 7.0),
        ("MODEL.NRPN.PRE_NMS_TOPK", 0),
        ("MODEL.NRPN.IGNORE_IOA", 0.0),
        ("MODEL.RPN.NEGATIVE_SAMPLER.HARD_FRACTION", 1.1),
        ("MODEL.RPN.NEGATIVE_SAMPLER.IOU_BINS", 0),
        ("MODEL.RPN.OBJECTNESS_LOSS.OVERLAP_MODE", "clamp"),
        ("MODEL.RPN.OBJECTNESS_LOSS.MIN_IOU", 0.0),
        ("MODEL.RPN.OBJECTNESS_LOSS.FOCAL_ALPHA", -1.0),
        ("MODEL.RPN.OBJECTNESS_LOSS.FOCAL_GAMMA", -1.0),
        ("MODEL.RPN.OBJECTNESS_LOSS.IOU_OF", "box"),
        ("MODEL.TORCHVISION.NORM", "SyncBN"),
        ("MODEL.VGG.DROPOUT", 1.0),
        ("MODEL.VGG.FC_DIM", 0),
        ("MODEL.VGG.WIDTHS", [8, 8]),
        ("MODEL.VGG.WIDTHS", [8, 0, 8, 8]),
        ("MODEL.VGG.NORM", "Batch"),
        ("MODEL.VGG.NORM", "GN"),  # its groups of 32 do not divide the widths 8 and 16
        ("DATASETS.VOC_ON_ERROR", "ignore"),
        ("TEST.PROPOSALS.BUDGETS", []),
        ("TEST.PROPOSALS.BUDGETS", [0]),
        ("TEST.PROPOSALS.IOU_THRESHOLDS", [1.5]),
        ("TEST.PROPOSALS.IOU_THRESHOLDS", ["x"]),
        ("SOLVER.CHECKPOINTS_TO_KEEP", -1),
        ("SOLVER.MAX_ITER", 0),
        ("INPUT.MIN_SIZE_TRAIN", ()),
        ("DATASETS.TRAIN", ()),
        ("OUTPUT_DIR", ""),
        # what does not go with the model
        ("MODEL.RPN.IOU_THRESHOLDS", [0.7, 0.3]),
        ("MODEL.RPN.IN_FEATURES", ["conv9"]),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["res4"]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[0]]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16]]),
        ("MODEL.RPN.NEGATIVE_SAMPLER.NAME", "Randm"),
        ("MODEL.RPN.OBJECTNESS_LOSS.NAME", "Overlpa"),
    ],
)
def test_value_out_of_range(key, value):
    cfg = small_cfg(**{"DATASETS__TRAIN": ("a",), key.replace(".", "__"): value})
    with pytest.raises(ValueError, match=re.escape(key)):
        check_nrpn_config(cfg)
        check_run_config(cfg, eval_only=False)
        build_model(cfg)


@pytest.mark.parametrize(
    "norm", ["BN", "FrozenBN", "GN", "LN", "SyncBN", "nnSyncBN", "naiveSyncBN"]
)
def test_norms_that_pass_can_be_built(norm):
    """Which there are depends on the version of Detectron2: v0.5 has no LN."""
    cfg = small_cfg(MODEL__VGG__WIDTHS=[32] * 4, MODEL__VGG__NORM=norm)
    try:
        check_nrpn_config(cfg)
    except ValueError as error:
        assert "MODEL.VGG.NORM" in str(error)
        with pytest.raises(KeyError):
            build_model(cfg)
    else:
        build_model(cfg)


def test_fp_iou_above_the_background_threshold():
    above = {"MODEL__NRPN__FP_IOU": 0.4}
    with pytest.raises(
        ValueError, match=r"NRPN.FP_IOU is 0.4, above MODEL.RPN.IOU_THRESHOLDS.* 0.3"
    ):
        build_model(small_cfg(**above))
    build_model(small_cfg(**above, MODEL__RPN__IOU_THRESHOLDS=[0.4, 0.7]))
    build_model(small_cfg(**above, MODEL__NRPN__FP_BY="proposal"))  # regressed, it may have any IoU
    build_model(small_cfg(**above, MODEL__RPN__NEGATIVE_SAMPLER__NAME="OHEM"))  # mines nothing


def test_building_an_rpn_does_not_check_the_solver():
    build_model(small_cfg(SOLVER__CHECKPOINTS_TO_KEEP=-1))


def test_building_checks_the_values():
    with pytest.raises((KeyError, AssertionError), match="MODEL.NRPN.FP_SCOER"):
        small_cfg(MODEL__NRPN__FP_SCOER=0.5)
    with pytest.raises(ValueError, match="FP_SCORE"):
        build_model(small_cfg(MODEL__NRPN__FP_SCORE=7.0))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=os.path.basename)
def test_every_experiment_is_valid(path):
    cfg = load(os.path.basename(path))
    check_nrpn_config(cfg)
    assert cfg.MODEL.PROPOSAL_GENERATOR.NAME in ("HardNegativeRPN", "PrecomputedProposals")
    assert cfg.OUTPUT_DIR == f"output/{os.path.basename(path)[:-5]}"
    assert cfg.MODEL.RPN.POST_NMS_TOPK_TEST >= max(cfg.TEST.PROPOSALS.BUDGETS)
    with open(path) as f:
        assert f.readline().startswith("# "), "a header gives command, time and result"


@pytest.mark.parametrize("data", ["voc", "shapes", "bccd"])
def test_experiments_differ_only_in_what_they_compare(data):
    suffix = "_vgg16" if data == "voc" else ""
    rpn, nrpn, overlap = (
        load(f"{data}_{name}{suffix}.yaml") for name in ("rpn", "nrpn", "nrpn_overlap")
    )
    assert rpn.MODEL.RPN.NEGATIVE_SAMPLER.NAME == "Random"
    assert nrpn.MODEL.RPN.NEGATIVE_SAMPLER.NAME == overlap.MODEL.RPN.NEGATIVE_SAMPLER.NAME == "NRPN"
    assert rpn.MODEL.RPN.OBJECTNESS_LOSS.NAME == nrpn.MODEL.RPN.OBJECTNESS_LOSS.NAME == "BCE"
    assert overlap.MODEL.RPN.OBJECTNESS_LOSS.NAME == "Overlap"
    for cfg in (nrpn, overlap):
        cfg.OUTPUT_DIR = rpn.OUTPUT_DIR
        cfg.MODEL.RPN.NEGATIVE_SAMPLER.NAME = "Random"
        cfg.MODEL.RPN.OBJECTNESS_LOSS.NAME = "BCE"
        assert cfg == rpn


@pytest.mark.parametrize(
    "iou, baseline", [("vgg16", "voc_rpn_vgg16"), ("R50_FPN", "voc_nrpn_R50_FPN")]
)
def test_the_recommended_form_differs_only_in_its_target(iou, baseline):
    cfg, other = load(f"voc_iou_{iou}.yaml"), load(f"{baseline}.yaml")
    loss = cfg.MODEL.RPN.OBJECTNESS_LOSS
    assert (loss.NAME, loss.IOU_OF, loss.NEAR_NEGATIVES) == ("IoUTarget", "proposal", False)
    assert cfg.MODEL.RPN.NEGATIVE_SAMPLER.NAME == "Random"
    other.OUTPUT_DIR, other.MODEL.RPN.NEGATIVE_SAMPLER.NAME = cfg.OUTPUT_DIR, "Random"
    other.MODEL.RPN.OBJECTNESS_LOSS.NAME = "IoUTarget"
    assert cfg == other


def test_the_papers_settings():
    cfg = load("voc_nrpn_overlap_vgg16.yaml")
    assert cfg.SOLVER.IMS_PER_BATCH == 1 and cfg.SOLVER.MAX_ITER == 20 * 5011
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[128, 256, 512]]
    assert cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS == [[0.5, 1.0, 2.0]]
    assert cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE == 256 and cfg.MODEL.RPN.POSITIVE_FRACTION == 0.5
    assert cfg.MODEL.RPN.IOU_THRESHOLDS == [0.3, 0.7] and cfg.MODEL.RPN.NMS_THRESH == 0.7
    assert cfg.MODEL.VGG.WIDTHS == [64, 128, 256, 512, 512] and cfg.MODEL.VGG.FC_DIM == 4096
    assert cfg.MODEL.NRPN.FP_SCORE == 0.7 and cfg.MODEL.NRPN.FP_IOU == 0.3
    assert not cfg.MODEL.NRPN.SHARE_FEATURES and cfg.MODEL.NRPN.FP_SELECT == "threshold"
    assert cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE == 128
    assert cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION == 0.25
    assert cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS == [0.1, 0.5]
    assert cfg.TEST.PROPOSALS.BUDGETS == [50, 100, 300]
