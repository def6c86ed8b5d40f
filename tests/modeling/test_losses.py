"""Objectness losses against values worked out by hand."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from hypothesis import given
from hypothesis import strategies as st

from nrpn_d2 import OBJECTNESS_LOSS_REGISTRY, add_nrpn_config
from nrpn_d2.modeling.losses import IoUTarget, Overlap, QualityFocal, bce

MODES = ("literal", "clamped", "soft")


def logit(p):
    return math.log(p / (1 - p))


def loss_and_gradient(loss, p, label, iou):
    """The loss of one anchor with probability p, and its derivative by the logit."""
    logits = torch.tensor([logit(p)], dtype=torch.float32, requires_grad=True)
    value = loss(logits, torch.tensor([label]), torch.tensor([iou]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.item(), gradient.item()


@pytest.mark.parametrize(
    "mode, p, iou, loss, gradient",
    [
        # -log(0.5 / 0.8) = log 1.6; d/ds(-log p) = p - 1
        ("literal", 0.5, 0.8, math.log(1.6), -0.5),
        # p > IoU: the printed loss is negative and still pushes p up
        ("literal", 0.9, 0.6, math.log(0.6 / 0.9), -0.1),
        ("clamped", 0.5, 0.8, math.log(1.6), -0.5),
        ("clamped", 0.9, 0.6, 0.0, 0.0),
        # BCE with target 0.8 at p = 0.5: log 2; derivative p - t
        ("soft", 0.5, 0.8, math.log(2), -0.3),
        ("soft", 0.9, 0.6, -0.6 * math.log(0.9) - 0.4 * math.log(0.1), 0.3),
    ],
)
def test_overlap_positive(mode, p, iou, loss, gradient):
    got = loss_and_gradient(Overlap(mode=mode), p, 1, iou)
    assert got == pytest.approx((loss, gradient), abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_overlap_negative_is_minus_log_of_one_minus_p(mode):
    # Eq. (1) as printed would give -log p = log 4; p = 0.25 must cost -log 0.75, whatever the IoU
    got = loss_and_gradient(Overlap(mode=mode), 0.25, 0, 0.29)
    assert got == pytest.approx((-math.log(0.75), 0.25), abs=1e-6)


@given(st.floats(-30, 30), st.floats(0.1, 1))
def test_literal_has_the_gradient_of_bce(s, iou):
    logits = torch.tensor([s, s], requires_grad=True)
    labels, ious, loss = torch.tensor([1, 0]), torch.tensor([iou, iou]), Overlap(mode="literal")
    (literal,) = torch.autograd.grad(loss(logits, labels, ious).sum(), logits)
    (plain,) = torch.autograd.grad(bce(logits, labels).sum(), logits)
    assert torch.equal(literal, plain)


@given(st.floats(0.11, 0.99), st.floats(0.11, 0.99))
def test_clamped_stops_at_iou(p, iou):
    loss, gradient = loss_and_gradient(Overlap(mode="clamped"), p, 1, iou)
    if p > iou + 1e-5:
        assert (loss, gradient) == (0.0, 0.0)
    elif p < iou - 1e-5:
        assert loss == pytest.approx(math.log(iou / p), abs=1e-4)
        assert gradient == pytest.approx(p - 1, abs=1e-4)


def test_clamped_gradient_is_zero_at_equality():
    # p = IoU = 0.5 is exact in float32: -log 0.5 + log 0.5 = 0
    assert loss_and_gradient(Overlap(mode="clamped"), 0.5, 1, 0.5) == (0.0, 0.0)


def test_soft_has_its_minimum_at_iou():
    ious = torch.linspace(0.1, 0.95, 18)
    grid = torch.linspace(0.01, 0.99, 981)  # steps of 0.001
    soft = Overlap(mode="soft")
    for iou in ious:
        loss = soft(torch.logit(grid), torch.ones(981), iou.expand(981))
        assert grid[loss.argmin()].item() == pytest.approx(iou.item(), abs=1.1e-3)
        _, gradient = loss_and_gradient(soft, iou.item(), 1, iou.item())
        assert gradient == pytest.approx(0, abs=1e-6)


def test_iou_is_clamped():
    # IoU 0 counts as min_iou 0.2: -log(0.5 / 0.2) < 0, clamped to 0; literal gives log 0.4
    loss, _ = loss_and_gradient(Overlap(mode="literal", min_iou=0.2), 0.5, 1, 0.0)
    assert loss == pytest.approx(math.log(0.4), abs=1e-6)


def test_unknown_mode():
    with pytest.raises(ValueError, match="'sofd'"):
        Overlap(mode="sofd")


def test_quality_focal():
    # t = 0.8, p = 0.5: |0.3|^2 * log 2;  negative, p = 0.25: 0.25^2 * -log 0.75
    logits = torch.tensor([0.0, logit(0.25)])
    loss = QualityFocal()(logits, torch.tensor([1, 0]), torch.tensor([0.8, 0.2]))
    expected = [0.09 * math.log(2), 0.0625 * -math.log(0.75)]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "label, iou, near_negatives, stretch, target",
    [
        (1, 0.65, False, False, 0.65),
        (1, 0.2, False, False, 0.2),  # a positive's proposal may have left its object
        (0, 0.65, False, False, 0.0),
        (0, 0.65, True, False, 0.65),
        (0, 0.29, True, False, 0.0),
        (1, 0.65, False, True, 0.5),  # 0.35 / 0.7
        (1, 0.2, False, True, 0.0),
        (0, 0.44, True, True, 0.2),  # 0.14 / 0.7
        (0, 0.44, False, True, 0.0),
    ],
)
def test_iou_target(label, iou, near_negatives, stretch, target):
    # Cross-entropy at p = 0.25: -t log 0.25 - (1 - t) log 0.75, with the gradient p - t
    loss = IoUTarget(near_negatives=near_negatives, stretch=stretch)
    got = loss_and_gradient(loss, 0.25, label, iou)
    loss = -target * math.log(0.25) - (1 - target) * math.log(0.75)
    assert got == pytest.approx((loss, 0.25 - target), abs=1e-5)


def test_no_gradient_into_the_iou():
    ious = torch.tensor([0.5], requires_grad=True)
    assert not IoUTarget()(torch.zeros(1), torch.ones(1), ious).requires_grad


def make(name, **options):
    cfg = get_cfg()
    add_nrpn_config(cfg)
    for key, value in options.items():
        setattr(cfg.MODEL.RPN.OBJECTNESS_LOSS, key, value)
    return OBJECTNESS_LOSS_REGISTRY.get(name)(cfg)


def test_focal():
    # positive, p = 0.5: 0.3 * 0.5^3 * log 2;  negative, p = 0.25: 0.7 * 0.25^3 * -log 0.75
    loss = make("Focal", FOCAL_ALPHA=0.3, FOCAL_GAMMA=3.0)(
        torch.tensor([0.0, logit(0.25)]), torch.tensor([1, 0]), torch.tensor([0.8, 0.2])
    )
    expected = [0.3 * 0.125 * math.log(2), 0.7 * 0.015625 * -math.log(0.75)]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)


def test_registered_losses_follow_the_config():
    logits, labels = torch.tensor([0.0, 0.0]), torch.tensor([1, 0])
    ious = torch.tensor([0.0, 0.0])
    assert make("BCE")(logits, labels, ious).tolist() == pytest.approx([math.log(2)] * 2)
    soft = make("Overlap", OVERLAP_MODE="soft", MIN_IOU=0.25)
    assert soft(torch.tensor([2.0]), torch.tensor([1]), torch.tensor([0.0])).item() == (
        pytest.approx(bce(torch.tensor([2.0]), torch.tensor([0.25])).item())
    )
    quality = make("QualityFocal", FOCAL_GAMMA=1.0)
    assert quality(logits, labels, ious).tolist() == pytest.approx([0.5 * math.log(2)] * 2)
    target = make("IoUTarget", IOU_OF="anchor", NEAR_NEGATIVES=True, STRETCH=True)
    assert (target.iou_of, target.near_negatives, target.stretch) == ("anchor", True, True)
    assert make("IoUTarget").iou_of == "proposal" and not make("IoUTarget").needs_all_anchors
    assert not make("BCE").needs_all_anchors and not make("Overlap").needs_all_anchors
    assert make("Focal").needs_all_anchors and make("QualityFocal").needs_all_anchors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["BCE", "Overlap", "Focal", "QualityFocal", "IoUTarget"])
@pytest.mark.parametrize("mode", MODES)
def test_finite_for_extreme_input(name, mode, dtype):
    logits = torch.tensor([80.0, -80.0, 80.0, -80.0, 0.0], dtype=dtype, requires_grad=True)
    labels = torch.tensor([1, 1, 0, 0, 1], dtype=torch.int8)
    loss = make(name, OVERLAP_MODE=mode)(logits, labels, torch.tensor([0.0, 0, 0, 0, 1]))
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["BCE", "Overlap", "Focal", "QualityFocal", "IoUTarget"])
def test_no_anchor_keeps_the_graph(name):
    logits = torch.zeros(0, requires_grad=True)
    loss = make(name)(logits, torch.zeros(0), torch.zeros(0)).sum()
    loss.backward()
    assert loss.item() == 0 and logits.grad.shape == (0,)
