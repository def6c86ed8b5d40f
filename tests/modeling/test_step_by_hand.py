"""One training step by hand: one feature map of 1 x R cells, each with a 10 x 10 anchor."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList
from detectron2.utils.events import EventStorage
from small_models import instances, small_cfg
from torch import nn

from nrpn_d2.modeling.hard_negative_rpn import HardNegativeRPN
from nrpn_d2.modeling.losses import OBJECTNESS_LOSS_REGISTRY
from nrpn_d2.modeling.samplers import NRPN, OHEM, All


class _Head(nn.Module):
    """Logits and deltas as they are given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits).view(len(logits), 1, 1, -1))

    def forward(self, features):
        n, _, _, r = self.logits.shape
        return [self.logits], [torch.zeros(n, 4, 1, r)]


class _NRPN(nn.Module):
    backbone = None

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images, features):
        return self.logits

    def zero(self):
        return 0 * self.logits.sum()


class _Anchors(nn.Module):
    box_dim = 4

    def forward(self, features):
        x = torch.arange(features[0].shape[-1]) * 10.0
        zero = torch.zeros_like(x)
        return [Boxes(torch.stack([x, zero, x + 10, zero + 10], dim=1))]


def rpn_by_hand(logits, nrpn_logits=None, loss="BCE", sampler=None, **kwargs):
    cfg = small_cfg()
    arguments = RPN.from_config(cfg, {"conv4": _Shape()})
    arguments.update(
        head=_Head(logits),
        anchor_generator=_Anchors(),
        objectness_loss=OBJECTNESS_LOSS_REGISTRY.get(loss)(cfg),
        negative_sampler=sampler
        or NRPN(batch_size_per_image=4, positive_fraction=0.5, hard_fraction=1.0),
        batch_size_per_image=4,
        negative_rpn=None if nrpn_logits is None else _NRPN(nrpn_logits),
        nrpn_sampler=NRPN(batch_size_per_image=4, positive_fraction=0.5, hard_fraction=1.0),
        **kwargs,
    )
    return HardNegativeRPN(**arguments).train()


class _Shape:
    channels, stride = 16, 8


def learn(rpn, gts):
    features = {"conv4": torch.zeros(len(gts), 16, 1, rpn.rpn_head.logits.shape[-1])}
    images = ImageList(torch.zeros(len(gts), 3, 10, 100), [(10, 100)] * len(gts))
    with EventStorage(0) as storage:
        _, losses = rpn(images, features, gts)
        return losses, {k: v for k, (v, _) in storage.latest().items()}


def softplus(x):
    return math.log1p(math.exp(x))


def test_one_step_by_hand():
    # Anchor 0 is the object. 4 and 5 pass 0.7 (logit 0.85): the nRPN's positives. The nRPN proposes
    # 1 and 2 first; of 4 sampled anchors 3 are negatives, all may be hard: 1, 2 and 3.
    rpn_logits = [2.0, 0.5, -1.0, 0.0, 1.0, 3.0]
    nrpn_logits = [9.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    rpn = rpn_by_hand([rpn_logits], [nrpn_logits], nrpn_loss_weight=0.5)
    gt = instances([[0, 0, 10, 10]])
    losses, scalars = learn(rpn, [gt])
    # RPN: -log p of anchor 0, -log(1 - p) of 1, 2, 3, over 4 anchors
    expected = (softplus(-2) + softplus(0.5) + softplus(-1) + softplus(0)) / 4
    assert losses["loss_rpn_cls"].item() == pytest.approx(expected, abs=1e-6)
    # nRPN: positives 4 and 5 (2 of 4); negatives: the object first, and one random of 1, 2, 3
    common = softplus(-2) + softplus(-1) + softplus(9)
    options = [0.5 * (common + softplus(t)) / 4 for t in (5.0, 4.0, 3.0)]
    for _ in range(10):
        loss = learn(rpn, [gt])[0]["loss_nrpn_cls"].item()
        assert any(loss == pytest.approx(x, abs=1e-6) for x in options)
    assert scalars["nrpn/false_positives"] == 2 and scalars["nrpn/hard_negatives"] == 3
    sigmoid = torch.sigmoid
    for name, value in {
        "nrpn/rpn_score_on_fp": sigmoid(torch.tensor([1.0, 3.0])).mean(),
        "nrpn/score_on_fp": sigmoid(torch.tensor([2.0, 1.0])).mean(),
        "nrpn/rpn_score_on_hard": sigmoid(torch.tensor([0.5, -1.0, 0.0])).mean(),
        "nrpn/score_on_hard": sigmoid(torch.tensor([5.0, 4.0, 3.0])).mean(),
        "nrpn/believed": torch.tensor(0.0),  # the RPN scores none of the three over 0.7
        # The nRPN ranks the two false positives fourth and fifth of the background
        "nrpn/ap": torch.tensor((1 / 4 + 2 / 5) / 2),
    }.items():
        assert scalars[name] == pytest.approx(value.item(), abs=1e-6), name


def test_counts_are_per_image_and_empty_means_are_left_out():
    rpn = rpn_by_hand([[0.0] * 4] * 2, [[0.0] * 4] * 2)
    _, scalars = learn(rpn, [instances([]), instances([])])
    assert scalars["nrpn/false_positives"] == 0 and "nrpn/score_on_fp" not in scalars
    assert scalars["nrpn/hard_negatives"] == 4
    assert scalars["rpn/num_pos_anchors"] == 0 and scalars["rpn/num_neg_anchors"] == 4


def test_overlap_loss_gets_the_anchors_iou():
    # The object covers 0.8 of anchor 0 and nothing else: IoU 0.8 and p = 0.9 > 0.8 costs nothing;
    # the other anchor is sampled as background
    rpn = rpn_by_hand([[math.log(9), 0.0]], loss="Overlap")
    losses, _ = learn(rpn, [instances([[0, 0, 8, 10]])])
    assert losses["loss_rpn_cls"].item() == pytest.approx(math.log(2) / 4, abs=1e-6)


def test_focal_loss_takes_all_anchors_and_divides_by_positives():
    # Two positives, three negatives at p = 0.5: alpha 0.25 -> (2 * 0.25 + 3 * 0.75) * 0.25 log 2
    cfg = small_cfg(
        MODEL__RPN__NEGATIVE_SAMPLER__NAME="All", MODEL__RPN__OBJECTNESS_LOSS__NAME="Focal"
    )
    assert build_model(cfg).proposal_generator.negative_sampler.keeps_all_anchors
    rpn = rpn_by_hand([[0.0] * 5], loss="Focal", sampler=All())
    gt = instances([[0, 0, 10, 10], [20, 0, 30, 10]])
    losses, _ = learn(rpn, [gt])
    assert losses["loss_rpn_cls"].item() == pytest.approx(2.75 * 0.25 * math.log(2) / 2, abs=1e-6)
    losses, _ = learn(rpn, [instances([])])  # no positive: divided by 1
    assert losses["loss_rpn_cls"].item() == pytest.approx(5 * 0.75 * 0.25 * math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    "loss, sampler", [("Focal", "Random"), ("QualityFocal", "NRPN"), ("BCE", "All")]
)
def test_loss_and_sampler_that_do_not_go_together(loss, sampler):
    cfg = small_cfg(
        MODEL__RPN__OBJECTNESS_LOSS__NAME=loss, MODEL__RPN__NEGATIVE_SAMPLER__NAME=sampler
    )
    with pytest.raises(ValueError, match=f"'{loss}' does not go with .* '{sampler}'"):
        build_model(cfg)


@pytest.mark.parametrize("name", ["loss_rpn_cls", "loss_rpn_loc"])
def test_loss_weights(name):
    # the IoU of the object with anchor 0 is 0.8, so that there is something to regress
    gt = instances([[0, 0, 8, 10]])
    ones = {"loss_rpn_cls": 1.0, "loss_rpn_loc": 1.0}
    one, _ = learn(rpn_by_hand([[0.0, 0.0]], loss_weight=dict(ones)), [gt])
    two, _ = learn(rpn_by_hand([[0.0, 0.0]], loss_weight={**ones, name: 2.0}), [gt])
    for key in ones:
        assert one[key] > 0
        assert two[key].item() == pytest.approx((2 if key == name else 1) * one[key].item())


@pytest.mark.parametrize("weights", [{"loss_rpn_cls": 1.0}, {"loss_rpn_cls": 1.0, "loss_loc": 1.0}])
def test_loss_weights_without_a_key(weights):
    with pytest.raises(ValueError, match=f"{list(weights)[-1]}.*needs one for.*loss_rpn_loc"):
        rpn_by_hand([[0.0]], loss_weight=weights)


def test_ohem_takes_the_rpns_own_scores():
    sampler = OHEM(batch_size_per_image=4, positive_fraction=0.5, hard_fraction=1.0)
    rpn = rpn_by_hand([[0.0, 3.0, 1.0, 2.0, -1.0, -2.0]], sampler=sampler)
    losses, _ = learn(rpn, [instances([[0, 0, 10, 10]])])
    expected = (softplus(0) + softplus(3) + softplus(1) + softplus(2)) / 4
    assert losses["loss_rpn_cls"].item() == pytest.approx(expected, abs=1e-6)
