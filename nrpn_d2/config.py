"""Every configuration key that nrpn_d2 adds to Detectron2's, with its unit or the paper's symbol."""
from typing import Any, Callable, Dict, Iterable, Tuple

import yaml
from detectron2.config import CfgNode as CN
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry


def add_nrpn_config(cfg: CN) -> None:
    """Add nrpn_d2's keys, with their defaults, to a Detectron2 config (in place).

    The defaults are the paper's RPN + nRPN (binary cross-entropy, no overlap loss). They only act
    once ``MODEL.PROPOSAL_GENERATOR.NAME`` is ``"HardNegativeRPN"``.
    """
    # ---- The objectness loss of the RPN
    cfg.MODEL.RPN.OBJECTNESS_LOSS = CN()
    # "BCE" (Faster R-CNN), "Overlap" (paper, Eq. 1), "Focal", "QualityFocal", "IoUTarget"
    cfg.MODEL.RPN.OBJECTNESS_LOSS.NAME = "BCE"
    # "clamped": a positive is pushed until p = IoU; "soft": its target is IoU;
    # "literal": the printed equation, whose gradient equals that of BCE
    cfg.MODEL.RPN.OBJECTNESS_LOSS.OVERLAP_MODE = "clamped"
    # The IoU of a positive anchor is clamped to [MIN_IOU, 1] before it divides or is a target
    cfg.MODEL.RPN.OBJECTNESS_LOSS.MIN_IOU = 0.1
    # Focal loss: weight of the positives, and exponent (QualityFocal only uses the exponent)
    cfg.MODEL.RPN.OBJECTNESS_LOSS.FOCAL_ALPHA = 0.25
    cfg.MODEL.RPN.OBJECTNESS_LOSS.FOCAL_GAMMA = 2.0

    # IoUTarget: the target of a positive is the IoU of its "proposal" (the regressed box) with the
    # object that the proposal overlaps most, or that of the "anchor"
    cfg.MODEL.RPN.OBJECTNESS_LOSS.IOU_OF = "proposal"
    # IoUTarget: whether sampled negatives whose proposal has an IoU of at least 0.3 get it as their
    # target, too (no negative anchor has such an IoU itself), and whether a target is
    # (IoU - 0.3) / 0.7, 0 below, instead of IoU
    cfg.MODEL.RPN.OBJECTNESS_LOSS.NEAR_NEGATIVES = False
    cfg.MODEL.RPN.OBJECTNESS_LOSS.STRETCH = False

    # ---- Which negative anchors the RPN learns from
    cfg.MODEL.RPN.NEGATIVE_SAMPLER = CN()
    # "NRPN" (paper), "Random" (Faster R-CNN), "OHEM", "IoUBalanced", "All" (focal losses only)
    cfg.MODEL.RPN.NEGATIVE_SAMPLER.NAME = "NRPN"
    # Largest fraction of an image's sampled negatives that NRPN and OHEM choose; the rest is random
    cfg.MODEL.RPN.NEGATIVE_SAMPLER.HARD_FRACTION = 0.25
    # IoUBalanced: number of equal IoU intervals that share the negatives
    cfg.MODEL.RPN.NEGATIVE_SAMPLER.IOU_BINS = 3

    # ---- The negative RPN. It is built only when NEGATIVE_SAMPLER.NAME is "NRPN"
    cfg.MODEL.NRPN = CN()
    # Iterations in which the RPN trains alone (paper, Sec. 2.1: "a small number of epochs").
    # 5,011 is one epoch of VOC 2007 trainval at batch size 1
    cfg.MODEL.NRPN.WARMUP_ITERS = 5011
    # False: a backbone of its own, as in the paper. True: a second head on the RPN's features
    cfg.MODEL.NRPN.SHARE_FEATURES = False
    # With shared features: whether the nRPN's loss stays out of the shared backbone
    cfg.MODEL.NRPN.STOP_GRADIENT = True
    # What counts as a false positive: "threshold" (paper, Sec. 2.2: score over FP_SCORE), "topk"
    # (the FP_TOPK best-scored background anchors of an image), "overestimate" (score minus IoU over
    # FP_SCORE) or "overestimate_topk" (the FP_TOPK anchors of largest score minus IoU)
    cfg.MODEL.NRPN.FP_SELECT = "threshold"
    cfg.MODEL.NRPN.FP_SCORE = 0.7  # objectness probability, or its excess over the IoU
    cfg.MODEL.NRPN.FP_IOU = 0.3  # its IoU with every object is below this
    cfg.MODEL.NRPN.FP_TOPK = 16  # anchors per image
    # Whose IoU that is, in the choice of false positives and of hard negatives: that of the
    # "anchor", or that of its "proposal", the box that the RPN regresses from it
    cfg.MODEL.NRPN.FP_BY = "anchor"
    # Of its background anchors that are no false positives, the FALSE_ALARMS best-scored by the
    # nRPN in each image join its mini-batch as negatives; 0 for none, as in the paper
    cfg.MODEL.NRPN.FALSE_ALARMS = 0
    # The nRPN's mini-batch: anchors per image, largest fraction of false positives in it, and
    # largest fraction of its negatives that are object anchors (the rest is random background)
    cfg.MODEL.NRPN.BATCH_SIZE_PER_IMAGE = 256
    cfg.MODEL.NRPN.POSITIVE_FRACTION = 0.5
    cfg.MODEL.NRPN.OBJECT_FRACTION = 0.5
    # The nRPN's proposals: its PRE_NMS_TOPK best-scored anchors, de-duplicated at this IoU
    cfg.MODEL.NRPN.PRE_NMS_TOPK = 1000
    cfg.MODEL.NRPN.NMS_THRESH = 0.7
    cfg.MODEL.NRPN.LOSS_WEIGHT = 1.0
    # Background anchors of which at least this fraction lies on a difficult object are ignored
    cfg.MODEL.NRPN.IGNORE_IOA = 0.5

    # ---- VGG (build_vgg_backbone, VGGBoxHead). The defaults are VGG-16
    cfg.MODEL.VGG = CN()
    cfg.MODEL.VGG.DEPTHS = [2, 2, 3, 3, 3]  # convolutions per stage
    cfg.MODEL.VGG.WIDTHS = [64, 128, 256, 512, 512]  # channels per stage
    cfg.MODEL.VGG.NORM = ""  # "" (VGG-16), "GN", "BN", "FrozenBN", "SyncBN"
    cfg.MODEL.VGG.OUT_FEATURES = ["conv5"]  # conv5 has stride 16: there is no fifth pooling
    cfg.MODEL.VGG.FC_DIM = 4096  # width of fc6 and fc7
    cfg.MODEL.VGG.DROPOUT = 0.5

    # ---- Classification networks of torchvision (build_torchvision_backbone, and with an FPN over
    # it build_torchvision_fpn_backbone). MODEL.BACKBONE.FREEZE_AT counts blocks, see
    # TorchvisionBackbone; MODEL.WEIGHTS may be "torchvision://NAME"
    cfg.MODEL.TORCHVISION = CN()
    cfg.MODEL.TORCHVISION.NAME = "mobilenet_v2"  # as in torchvision.models.get_model
    cfg.MODEL.TORCHVISION.OUT_FEATURES = ["stride16"]
    cfg.MODEL.TORCHVISION.NORM = "FrozenBN"  # or "BN", which trains batch normalisation

    # ---- Data in PASCAL VOC layout (Annotations/, ImageSets/Main/, JPEGImages/)
    # VOC_NAME "x" registers the datasets x_<split>, one for each file in VOC_ROOT/ImageSets/Main
    cfg.DATASETS.VOC_NAME = ""
    cfg.DATASETS.VOC_ROOT = ""  # environment variables and ~ are expanded
    cfg.DATASETS.VOC_CLASSES = []
    # "error": stop at the first invalid object or image; "skip": drop, count and report it
    cfg.DATASETS.VOC_ON_ERROR = "error"

    # ---- Checkpoints: the newest periodic ones that are kept; 0 keeps all
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 3
    # model_best.pth has the largest value of this result, taken every TEST.EVAL_PERIOD iterations.
    # "" is "bbox/AP50" or, for a ProposalNetwork, "box_proposals/AR@300" (most proposals), on the
    # first of DATASETS.TEST
    cfg.SOLVER.BEST_METRIC = ""

    # ---- Training: how many batches whose losses are not finite a run may skip before it stops
    cfg.SOLVER.SKIP_NONFINITE = 0
    # Only algorithms that give the same result every time, also on a GPU: slower, and operations
    # without one raise an error. On a GPU it needs ROI_BOX_HEAD.POOLER_TYPE "ROIAlignV2"
    cfg.SOLVER.DETERMINISTIC = False

    # ---- Evaluation: number of proposals per image, and IoU thresholds of the recall
    cfg.TEST.PROPOSALS = CN()
    cfg.TEST.PROPOSALS.BUDGETS = [50, 100, 300]
    cfg.TEST.PROPOSALS.IOU_THRESHOLDS = [0.5, 0.7, 0.9]


_FRACTIONS = (
    "MODEL.RPN.OBJECTNESS_LOSS.FOCAL_ALPHA",
    "MODEL.RPN.NEGATIVE_SAMPLER.HARD_FRACTION",
    "MODEL.NRPN.FP_SCORE",
    "MODEL.NRPN.FP_IOU",
    "MODEL.NRPN.POSITIVE_FRACTION",
    "MODEL.NRPN.OBJECT_FRACTION",
    "MODEL.NRPN.NMS_THRESH",
)
_POSITIVE_COUNTS = (
    "MODEL.RPN.NEGATIVE_SAMPLER.IOU_BINS",
    "MODEL.NRPN.FP_TOPK",
    "MODEL.NRPN.BATCH_SIZE_PER_IMAGE",
    "MODEL.NRPN.PRE_NMS_TOPK",
    "MODEL.VGG.FC_DIM",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
)
_NOT_NEGATIVE = (
    "MODEL.RPN.OBJECTNESS_LOSS.FOCAL_GAMMA",
    "MODEL.NRPN.WARMUP_ITERS",
    "MODEL.NRPN.LOSS_WEIGHT",
    "MODEL.NRPN.FALSE_ALARMS",
    "SOLVER.CHECKPOINTS_TO_KEEP",
    "SOLVER.SKIP_NONFINITE",
)
_OVER_ZERO_TO_ONE = ("MODEL.RPN.OBJECTNESS_LOSS.MIN_IOU", "MODEL.NRPN.IGNORE_IOA")
_CHOICES = {
    "MODEL.RPN.OBJECTNESS_LOSS.OVERLAP_MODE": ("literal", "clamped", "soft"),
    "MODEL.RPN.OBJECTNESS_LOSS.IOU_OF": ("proposal", "anchor"),
    "MODEL.NRPN.FP_SELECT": ("threshold", "topk", "overestimate", "overestimate_topk"),
    "MODEL.NRPN.FP_BY": ("anchor", "proposal"),
    "MODEL.TORCHVISION.NORM": ("FrozenBN", "BN"),
    "MODEL.VGG.NORM": ("", "BN", "FrozenBN", "GN", "LN", "SyncBN", "nnSyncBN", "naiveSyncBN"),
    "DATASETS.VOC_ON_ERROR": ("error", "skip"),
}


def check_nrpn_config(cfg: CN) -> None:
    """Check that the values of nrpn_d2's keys are in range.

    Raises:
        ValueError: naming the key, its value and what it may be.
    """
    rules = [
        (_FRACTIONS, lambda v: 0 <= v <= 1, "in [0, 1]"),
        (_OVER_ZERO_TO_ONE, lambda v: 0 < v <= 1, "in (0, 1]"),
        (_POSITIVE_COUNTS, lambda v: v >= 1, "at least 1"),
        (_NOT_NEGATIVE, lambda v: v >= 0, "at least 0"),
        (("MODEL.VGG.DROPOUT",), lambda v: 0 <= v < 1, "in [0, 1)"),
        (
            ("TEST.PROPOSALS.BUDGETS", "MODEL.VGG.DEPTHS", "MODEL.VGG.WIDTHS"),
            lambda v: len(v) and all(isinstance(b, int) and b >= 1 for b in v),
            "a list of whole numbers of at least 1",
        ),
        (
            ("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"),
            _all_positive,
            "positive numbers in a list of lists, one for each feature map",
        ),
        (
            ("MODEL.RPN.IOU_THRESHOLDS",),
            lambda v: len(v) and 0 < v[0] and list(v) == sorted(v) and v[-1] <= 1,
            "IoU thresholds in (0, 1], the lower one first",
        ),
        (
            ("TEST.PROPOSALS.IOU_THRESHOLDS",),
            lambda v: len(v) and all(0 < t <= 1 for t in v),
            "a list of IoU thresholds in (0, 1]",
        ),
    ]
    for key, choices in _CHOICES.items():
        listed = ", ".join(map(repr, choices))
        rules.append(((key,), lambda v, c=choices: v in c, f"one of {listed}"))
    _check(cfg, rules)
    if len(cfg.MODEL.VGG.DEPTHS) != len(cfg.MODEL.VGG.WIDTHS):
        raise ValueError(
            f"MODEL.VGG.DEPTHS {cfg.MODEL.VGG.DEPTHS} and MODEL.VGG.WIDTHS "
            f"{cfg.MODEL.VGG.WIDTHS} must name the same number of stages"
        )


def check_run_config(cfg: CN, eval_only: bool) -> None:
    """Check what a training run needs, or one that only evaluates.

    Raises:
        ValueError: naming the key, its value and what it may be.
    """
    rules = [(("OUTPUT_DIR",), bool, "the folder that the run writes to")]
    if eval_only:
        rules += [
            (("MODEL.WEIGHTS",), bool, "the checkpoint to evaluate"),
            (("DATASETS.TEST",), bool, "the names of the datasets to evaluate on"),
        ]
    else:
        rules += [
            (("DATASETS.TRAIN",), bool, "the names of the datasets to train on"),
            (("SOLVER.MAX_ITER", "SOLVER.CHECKPOINT_PERIOD"), lambda v: v >= 1, "at least 1"),
            (("INPUT.MIN_SIZE_TRAIN",), lambda v: len(v) and min(v) >= 0, "lengths in pixels"),
        ]
    _check(cfg, rules)


def _all_positive(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(map(_all_positive, value))
    return value > 0


def check_features(cfg: CN, input_shape: Dict[str, ShapeSpec]) -> None:
    """Check that the backbone has the feature maps that the networks read.

    Args:
        input_shape: the backbone's feature maps by name.

    Raises:
        ValueError: naming the key, its value and the feature maps that there are.
    """
    there = f"names of the backbone's feature maps: {', '.join(input_shape)}"
    keys = ["MODEL.RPN.IN_FEATURES"]
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        keys.append("MODEL.ROI_HEADS.IN_FEATURES")
    _check(cfg, [(keys, lambda v: len(v) and set(v) <= set(input_shape), there)])


def check_registered(cfg: CN, key: str, registry: Registry) -> None:
    """Check that the value of ``key`` is a name in ``registry``.

    Raises:
        ValueError: naming the key, its value and the names that there are.
    """
    names = ", ".join(repr(name) for name, _ in registry)
    _check(cfg, [((key,), registry.__contains__, f"one of {names}, or registered by you")])


_Rule = Tuple[Iterable[str], Callable[[Any], bool], str]  # keys, what holds for values, in words


def _check(cfg: CN, rules: Iterable[_Rule]) -> None:
    for keys, valid, what in rules:
        for key in keys:
            value = cfg
            for part in key.split("."):
                value = value[part]
            try:
                is_valid = valid(value)
            except TypeError:  # text or a list where a number belongs
                is_valid = False
            if not is_valid:
                raise ValueError(f"{key} is {value!r}; it must be {what}")


def merge_config_file(cfg: CN, path: str) -> None:
    """As ``cfg.merge_from_file``; Python code in the file is refused, and errors name the file.

    Raises:
        ValueError: the file is missing, no YAML, not made of Detectron2's and nrpn_d2's keys, or
            has values of other types.
    """
    try:
        cfg.merge_from_file(path, allow_unsafe=False)
    except RecursionError:
        raise ValueError(f"{path}: its _BASE_ leads back to itself; correct _BASE_") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no text in UTF-8 ({error}); is it a config file?") from None
    except yaml.YAMLError as error:
        message = "no YAML that could be read; correct it. Tabs and Python objects are refused"
        raise ValueError(f"{path}: {message}:\n{error}") from None
    except (TypeError, AttributeError):
        message = "it must consist of sections and of lines KEY: VALUE; nothing may be empty"
        raise ValueError(f"{path}: {message}") from None
    except (AssertionError, KeyError, OSError, ValueError) as error:
        reason = str(error.args[0] if isinstance(error, KeyError) else error).rstrip("!")
        raise ValueError(f"{path}: {reason}; correct the file or its name") from None
