"""The hub: what it shares with Detectron2's RPN, what it adds, and whom its losses reach."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.utils.events import EventStorage
from small_models import TWO_OBJECTS, batch, instances, small_cfg

from nrpn_d2.modeling.mining import topk
from nrpn_d2.modeling.samplers import NEGATIVE_SAMPLER_REGISTRY, NRPN, Sample

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
