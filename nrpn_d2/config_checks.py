"""What the values of a config may be. Every error is a ValueError that names its key, the value and
what it must be.

``check_nrpn_config`` covers every key of nrpn_d2, and those of Detectron2 that it relies on.
``check_rpn``, the part that an RPN reads, also runs when one is built: another project may call
nothing else.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.utils.registry import Registry


class Rule(NamedTuple):
    """What a value must be: as a test (a TypeError counts as no), and in words."""

    is_valid: Callable[[Any], bool]
    words: str


def _one_of(*choices: str) -> Rule:
    return Rule(choices.__contains__, f"one of {', '.join(map(repr, choices))}")


def _all_positive(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(map(_all_positive, value))
    return value > 0


_FRACTION = Rule(lambda v: 0 <= v <= 1, "in [0, 1]")
_POSITIVE_FRACTION = Rule(lambda v: 0 < v <= 1, "in (0, 1]")
_AT_LEAST_0 = Rule(lambda v: v >= 0, "at least 0")
_AT_LEAST_1 = Rule(lambda v: v >= 1, "at least 1")
_COUNTS = Rule(
    lambda v: len(v) and all(isinstance(n, int) and n >= 1 for n in v),
    "a list of whole numbers of at least 1",
)
_ANCHORS = Rule(_all_positive, "positive numbers in a list of lists, one for each feature map")
_UPRIGHT = Rule(
    lambda v: v != "RotatedAnchorGenerator",
    "a generator of upright boxes; for rotated ones, use Detectron2's own proposal generator RRPN",
)

_RPN_RULES = {
    "MODEL.ANCHOR_GENERATOR.SIZES": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _ANCHORS,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": _AT_LEAST_1,
    "MODEL.RPN.IOU_THRESHOLDS": Rule(
        lambda v: len(v) and 0 < v[0] and list(v) == sorted(v) and v[-1] <= 1,
        "IoU thresholds in (0, 1], the lower one first",
    ),
    "MODEL.RPN.OBJECTNESS_LOSS.OVERLAP_MODE": _one_of("literal", "clamped", "soft"),
    "MODEL.RPN.OBJECTNESS_LOSS.MIN_IOU": _POSITIVE_FRACTION,
    "MODEL.RPN.OBJECTNESS_LOSS.FOCAL_ALPHA": _FRACTION,
    "MODEL.RPN.OBJECTNESS_LOSS.FOCAL_GAMMA": _AT_LEAST_0,
    "MODEL.RPN.OBJECTNESS_LOSS.IOU_OF": _one_of("proposal", "anchor"),
    "MODEL.RPN.NEGATIVE_SAMPLER.HARD_FRACTION": _FRACTION,
    "MODEL.RPN.NEGATIVE_SAMPLER.IOU_BINS": _AT_LEAST_1,
    "MODEL.NRPN.WARMUP_ITERS": _AT_LEAST_0,
    "MODEL.NRPN.FP_SCORE": _FRACTION,
    "MODEL.NRPN.FP_IOU": _FRACTION,
    "MODEL.NRPN.FP_TOPK": _AT_LEAST_1,
    "MODEL.NRPN.FP_BY": _one_of("anchor", "proposal"),
    "MODEL.NRPN.FALSE_ALARMS": _AT_LEAST_0,
    "MODEL.NRPN.BATCH_SIZE_PER_IMAGE": _AT_LEAST_1,
    "MODEL.NRPN.POSITIVE_FRACTION": _FRACTION,
    "MODEL.NRPN.OBJECT_FRACTION": _FRACTION,
    "MODEL.NRPN.PRE_NMS_TOPK": _AT_LEAST_1,
    "MODEL.NRPN.NMS_THRESH": _FRACTION,
    "MODEL.NRPN.LOSS_WEIGHT": _AT_LEAST_0,
    "MODEL.NRPN.IGNORE_IOA": _POSITIVE_FRACTION,
}
_OTHER_RULES = {
    "MODEL.VGG.DEPTHS": _COUNTS,
    "MODEL.VGG.WIDTHS": _COUNTS,
    "MODEL.VGG.FC_DIM": _AT_LEAST_1,
    "MODEL.VGG.DROPOUT": Rule(lambda v: 0 <= v < 1, "in [0, 1)"),
    "MODEL.TORCHVISION.NORM": _one_of("FrozenBN", "BN"),
    "DATASETS.ON_ERROR": _one_of("error", "skip"),
    "DATASETS.VOC_ON_ERROR": _one_of("error", "skip"),
    "SOLVER.CHECKPOINTS_TO_KEEP": _AT_LEAST_0,
    "TEST.PROPOSALS.BUDGETS": _COUNTS,
    "TEST.PROPOSALS.IOU_THRESHOLDS": Rule(
        lambda v: len(v) and all(0 < t <= 1 for t in v), "a list of IoU thresholds in (0, 1]"
    ),
}
_OUTPUT_DIR = {"OUTPUT_DIR": Rule(bool, "the folder that the run writes to")}
_EVALUATION_RULES = _OUTPUT_DIR | {
    "MODEL.WEIGHTS": Rule(bool, "the checkpoint to evaluate"),
    "DATASETS.TEST": Rule(bool, "the names of the datasets to evaluate on"),
}
_TRAINING_RULES = _OUTPUT_DIR | {
    "DATASETS.TRAIN": Rule(bool, "the names of the datasets to train on"),
    "SOLVER.MAX_ITER": _AT_LEAST_1,
    "SOLVER.CHECKPOINT_PERIOD": _AT_LEAST_1,
    "INPUT.MIN_SIZE_TRAIN": Rule(lambda v: len(v) and min(v) >= 0, "lengths in pixels"),
}


def check_nrpn_config(cfg: CfgNode) -> None:
    """Check that the values of nrpn_d2's keys are in range."""
    _check(cfg, _RPN_RULES | _OTHER_RULES)
    _check_vgg(cfg)


def check_run_config(cfg: CfgNode, eval_only: bool) -> None:
    """Check what a training run needs, or one that only evaluates."""
    _check(cfg, _EVALUATION_RULES if eval_only else _TRAINING_RULES)


def check_false_positive_iou(cfg: CfgNode) -> None:
    """Check that MODEL.NRPN.FP_IOU has an effect: false positives are background to the matcher.

    The proposal of a background anchor may have any IoU.
    """
    fp_iou, limit = cfg.MODEL.NRPN.FP_IOU, cfg.MODEL.RPN.IOU_THRESHOLDS[0]
    if cfg.MODEL.NRPN.FP_BY == "anchor" and fp_iou > limit:
        message = f"MODEL.NRPN.FP_IOU is {fp_iou}, above MODEL.RPN.IOU_THRESHOLDS[0] {limit}: false"
        message += " positives are background anchors, whose IoU is below the latter; lower FP_IOU"
        raise ValueError(f"{message}, or raise IOU_THRESHOLDS")


def check_rpn(cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> None:
    """Check what an RPN and an nRPN read, and that the backbone and the anchors have their maps."""
    _check(cfg, _RPN_RULES)
    known = f"names of the backbone's feature maps: {', '.join(input_shape)}"
    rule = Rule(lambda v: len(v) and set(v) <= set(input_shape), known)
    keys = ["MODEL.RPN.IN_FEATURES"]
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        keys.append("MODEL.ROI_HEADS.IN_FEATURES")
    _check(cfg, dict.fromkeys(keys, rule) | {"MODEL.ANCHOR_GENERATOR.NAME": _UPRIGHT})
    maps = len(cfg.MODEL.RPN.IN_FEATURES)
    per_map = Rule(lambda v: len(v) in (1, maps), f"a list of 1 or, for each feature map, {maps}")
    _check(cfg, {f"MODEL.ANCHOR_GENERATOR.{key}": per_map for key in ("SIZES", "ASPECT_RATIOS")})


def registered(cfg: CfgNode, key: str, registry: Registry) -> Any:
    """Return what ``registry`` has under the value of ``key``."""
    names = ", ".join(repr(name) for name, _ in registry)
    _check(cfg, {key: Rule(registry.__contains__, f"one of {names}, or registered by you")})
    return registry.get(_value(cfg, key))


def check_losses(loss_weight: Mapping[str, float], loss: Callable, sampler: Callable) -> None:
    """Check that each of the RPN's two losses has a weight, and what its objectness loss gets.

    A loss made for all anchors gets all of them, and no other does.
    """
    if loss_weight.keys() != {"loss_rpn_cls", "loss_rpn_loc"}:
        message = f"loss_weight has weights for {sorted(loss_weight)}"
        raise ValueError(f"{message}; it needs one for each of loss_rpn_cls and loss_rpn_loc")

    if loss.needs_all_anchors != sampler.keeps_all_anchors:
        message = f"MODEL.RPN.OBJECTNESS_LOSS.NAME {type(loss).__name__!r} does not go with"
        message += f" MODEL.RPN.NEGATIVE_SAMPLER.NAME {type(sampler).__name__!r}: focal losses"
        message += " weigh all anchors (sampler 'All'), the others need a sampled mini-batch"
        raise ValueError(message)


def _check_vgg(cfg: CfgNode) -> None:
    vgg = cfg.MODEL.VGG
    if len(vgg.DEPTHS) != len(vgg.WIDTHS):
        message = f"MODEL.VGG.DEPTHS {vgg.DEPTHS} and MODEL.VGG.WIDTHS {vgg.WIDTHS}"
        raise ValueError(f"{message} must name the same number of stages")
    for width in vgg.WIDTHS:
        try:
            get_norm(vgg.NORM, width)
        except KeyError:
            message = f"MODEL.VGG.NORM is {vgg.NORM!r}, which this Detectron2's get_norm lacks; it"
            message += ' must be a name such as "BN", "FrozenBN", "SyncBN" or "GN", or empty'
            raise ValueError(message) from None
        except ValueError as error:  # GN: groups of channels
            message = f"MODEL.VGG.NORM {vgg.NORM!r} does not go with a width of {width} in"
            raise ValueError(f"{message} MODEL.VGG.WIDTHS: {error}") from None


def _check(cfg: CfgNode, rules: Mapping[str, Rule]) -> None:
    for key, rule in rules.items():
        value = _value(cfg, key)
        try:
            is_valid = rule.is_valid(value)
        except TypeError:  # text or a list where a number belongs
            is_valid = False
        if not is_valid:
            raise ValueError(f"{key} is {value!r}; it must be {rule.words}")


def _value(cfg: CfgNode, key: str) -> Any:
    return functools.reduce(operator.getitem, key.split("."), cfg)
