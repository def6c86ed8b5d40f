"""The hub: what it shares with Detectron2's RPN, what it adds, and whom its losses reach."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList
from detectron2.utils.events import EventStorage
from small_models import TWO_OBJECTS, batch, instances, small_cfg
from torch import nn

from nrpn_d2.modeling.hard_negative_rpn import HardNegativeRPN
from nrpn_d2.modeling.losses import OBJECTNESS_LOSS_REGISTRY
from nrpn_d2.modeling.mining import topk
from nrpn_d2.modeling.samplers import NEGATIVE_SAMPLER_REGISTRY, NRPN, OHEM, All, Sample

OFF = {"MODEL__RPN__NEGATIVE_SAMPLER__NAME": "Random"}
TOPK = {"MODEL__NRPN__FP_SELECT": "topk"}  # an untrained RPN has no score over 0.7


def train_step(model, inputs, iteration=0):
    """Losses and scalars of one iteration, after back-propagation."""
    model.train()
    model.zero_grad()
    with EventStorage(iteration) as storage:
        losses = model(inputs)
        sum(losses.values()).backward()
        return losses, {name: value for name, (value, _) in storage.latest().items()}


def has_gradient(module):
    gradients = [p.grad for p in module.parameters() if p.requires_grad]
    return any(g is not None and g.abs().sum() > 0 for g in gradients)


def first_ones(labels, size=32):
    """A deterministic sample: the first anchors of each label."""
    labels = labels.clone()
    for value in (0, 1):
        labels[(labels == value).nonzero().flatten()[size:]] = -1
    return labels


# ---- Switched off: Detectron2's RPN


def plain_pair(backbone):
    cfg = small_cfg(backbone, **OFF)
    ours = build_model(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    stock = build_model(cfg)
    stock.load_state_dict(ours.state_dict())
    return ours, stock


@pytest.mark.parametrize("backbone", ["vgg", "fpn"])
def test_switched_off_it_is_detectron2s_rpn(backbone, monkeypatch):
    ours, stock = plain_pair(backbone)
    shapes = {name: p.shape for name, p in ours.named_parameters()}
    assert shapes == {name: p.shape for name, p in stock.named_parameters()}
    assert ours.state_dict().keys() == stock.state_dict().keys()

    monkeypatch.setattr(RPN, "_subsample_labels", lambda self, labels: first_ones(labels))
    ours.proposal_generator.negative_sampler = _Fixed()
    inputs = batch(instances(TWO_OBJECTS), instances([]))
    results = []
    for model in (stock, ours):
        torch.manual_seed(0)  # the ROI heads sample, too
        results.append(train_step(model, inputs))
    (expected, expected_scalars), (losses, scalars) = results
    assert losses.keys() == expected.keys()
    for name in losses:
        assert torch.equal(losses[name], expected[name]), name
    assert scalars == expected_scalars
    for p, q in zip(ours.parameters(), stock.parameters()):
        assert torch.equal(p.grad, q.grad)


class _Fixed:
    keeps_all_anchors = False

    def __call__(self, labels, logits, ious, hardness):
        sampled = torch.stack([first_ones(x) for x in labels])
        return Sample(sampled, torch.zeros_like(sampled, dtype=torch.bool))


# ---- Switched on


@pytest.mark.parametrize("meta_architecture", ["GeneralizedRCNN", "ProposalNetwork"])
@pytest.mark.parametrize("backbone", ["vgg", "fpn"])
@pytest.mark.parametrize("share", [False, True])
def test_trains_in_any_model(backbone, meta_architecture, share):
    model = build_model(
        small_cfg(backbone, meta_architecture, MODEL__NRPN__SHARE_FEATURES=share, **TOPK)
    )
    for gts in ([instances(TWO_OBJECTS)], [instances(TWO_OBJECTS), instances([])]):
        losses, scalars = train_step(model, batch(*gts))
        assert {"loss_rpn_cls", "loss_rpn_loc", "loss_nrpn_cls"} <= losses.keys()
        assert all(loss.isfinite() for loss in losses.values())
        assert scalars["nrpn/false_positives"] == 16  # FP_TOPK
        # 64 anchors, a quarter of the negatives; NMS may leave fewer
        assert 0 < scalars["nrpn/hard_negatives"] <= 16
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("objects", [TWO_OBJECTS, []])
@pytest.mark.parametrize("score", [0.7, 0.0])
def test_no_object_or_no_false_positive_keeps_the_graph(objects, score):
    # an untrained RPN gives 0.5 to everything: no false positive over 0.7
    model = build_model(small_cfg(MODEL__NRPN__FP_SCORE=score))
    losses, scalars = train_step(model, batch(instances(objects)))
    assert (scalars["nrpn/false_positives"] > 0) == (score == 0)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert losses["loss_nrpn_cls"] > 0  # it still learns to be silent


@pytest.mark.parametrize("share, stop", [(False, True), (True, True), (True, False)])
def test_losses_reach_their_own_networks(share, stop):
    cfg = small_cfg(MODEL__NRPN__SHARE_FEATURES=share, MODEL__NRPN__STOP_GRADIENT=stop, **TOPK)
    model = build_model(cfg)
    inputs = batch(instances(TWO_OBJECTS))
    generator = model.proposal_generator

    model.zero_grad()
    with EventStorage(0):
        losses = model(inputs)
    losses["loss_nrpn_cls"].backward()
    assert has_gradient(generator.negative_rpn.head)
    assert not has_gradient(generator.rpn_head)
    assert has_gradient(model.backbone) == (share and not stop)
    assert (generator.negative_rpn.backbone is None) == share
    if not share:
        assert has_gradient(generator.negative_rpn.backbone)

    for name in ("loss_rpn_cls", "loss_rpn_loc", "loss_cls"):
        model.zero_grad()
        with EventStorage(0):
            losses = model(inputs)
        losses[name].backward()
        assert not has_gradient(generator.negative_rpn), name
        assert has_gradient(model.backbone), name
        assert has_gradient(generator.rpn_head) == (name != "loss_cls")


def test_warmup():
    model = build_model(small_cfg(MODEL__NRPN__WARMUP_ITERS=5, **TOPK))
    inputs = batch(instances(TWO_OBJECTS))
    nrpn = model.proposal_generator.negative_rpn
    calls = []
    nrpn.register_forward_hook(lambda *_: calls.append(1))

    losses, scalars = train_step(model, inputs, iteration=4)
    assert scalars["nrpn/joint"] == 0 and scalars["nrpn/hard_negatives"] == 0
    assert scalars["nrpn/false_positives"] == 16  # already counted
    assert not calls and losses["loss_nrpn_cls"] == 0
    # data-parallel training needs a gradient, though it is zero
    assert all(p.grad is not None and not p.grad.any() for p in nrpn.parameters())

    losses, scalars = train_step(model, inputs, iteration=5)
    assert scalars["nrpn/joint"] == 1 and scalars["nrpn/hard_negatives"] > 0
    assert calls and losses["loss_nrpn_cls"] > 0 and has_gradient(nrpn)


# ---- By hand: one feature map of 1 x R cells with one 10 x 10 anchor each, side by side


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


# ---- Construction


@NEGATIVE_SAMPLER_REGISTRY.register()
class HardestOfAll(NRPN):
    """Registered outside the package."""

    seen = None

    def hard_negatives(self, background, quota, logits, ious, hardness):
        type(self).seen = hardness
        return super().hard_negatives(background, quota, logits, ious, hardness)


def test_an_unknown_miner_is_named():
    with pytest.raises(ValueError, match="FP_SELECT is 'best'; .* 'overestimate_topk', or reg"):
        build_model(small_cfg(MODEL__NRPN__FP_SELECT="best"))


def test_a_sampler_registered_outside_gets_hardness():
    model = build_model(small_cfg(MODEL__RPN__NEGATIVE_SAMPLER__NAME="HardestOfAll", **TOPK))
    _, scalars = train_step(model, batch(instances(TWO_OBJECTS)))
    assert scalars["nrpn/hard_negatives"] > 0 and scalars["nrpn/joint"] == 1
    assert (HardestOfAll.seen > -math.inf).any()


def test_the_keys_reach_their_places():
    nrpn = {"WARMUP_ITERS": 7, "LOSS_WEIGHT": 0.3, "IGNORE_IOA": 0.9}
    nrpn |= {"FP_SELECT": "topk", "FP_TOPK": 5, "FP_SCORE": 0.6, "FP_IOU": 0.2}
    nrpn |= {"PRE_NMS_TOPK": 30, "NMS_THRESH": 0.4}
    nrpn |= {"POSITIVE_FRACTION": 0.25, "OBJECT_FRACTION": 0.75}
    cfg = small_cfg(**{f"MODEL__NRPN__{key}": value for key, value in nrpn.items()})
    rpn = build_model(cfg).proposal_generator
    assert rpn.warmup_iters == 7 and rpn.nrpn_loss_weight == 0.3 and rpn.ignore_ioa == 0.9
    assert rpn.find_false_positives.keywords == dict(select=topk, score=0.6, iou=0.2, topk=5)
    assert rpn.propose_hard_negatives.keywords == dict(pre_nms_topk=30, nms_thresh=0.4)
    assert rpn.nrpn_sampler.max_positives == 16 and rpn.nrpn_sampler.hard_fraction == 0.75


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype):
    # without ROI heads: torchvision has no autocast of RoIPool on CPUs
    cfg = small_cfg("vgg", "ProposalNetwork", MODEL__RPN__OBJECTNESS_LOSS__NAME="Overlap", **TOPK)
    model = build_model(cfg)
    inputs = batch(instances(TWO_OBJECTS))
    with EventStorage(0), torch.autocast("cpu", dtype=dtype):
        losses = model(inputs)
    for name in ("loss_rpn_cls", "loss_rpn_loc", "loss_nrpn_cls"):
        assert losses[name].dtype == torch.float32 and losses[name].isfinite()
