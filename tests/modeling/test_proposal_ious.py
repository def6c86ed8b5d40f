"""The IoU of regressed boxes: by hand, against a loop over all of them, and in the hub."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, pairwise_iou
from small_models import TWO_OBJECTS, batch, instances, small_cfg
from test_hard_negative_rpn import train_step

from nrpn_d2.modeling.ignored import set_ignored_aside
from nrpn_d2.modeling.losses import IoUTarget, bce
from nrpn_d2.modeling.mining import false_positives
from nrpn_d2.modeling.proposal_ious import ProposalIoUs

TRANSFORM = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))


def test_by_hand():
    anchors = [Boxes(torch.tensor([[0.0, 0, 10, 10], [80, 0, 100, 20]]))]
    # The first is moved by its width to (10, 0, 20, 10); the second, twice as wide, would be
    # (70, 0, 110, 20), which ends at the right edge of the image: (70, 0, 96, 20)
    deltas = [torch.tensor([[[1.0, 0, 0, 0], [0, 0, math.log(2), 0]]]).repeat(2, 1, 1)]
    gts = [
        # (10, 0, 20, 20) overlaps the first by 100 of 200; (70, 0, 96, 20) is the second itself,
        # but difficult; of (86, 0, 96, 20), 200 of 520 lie on it
        set_ignored_aside(
            instances([[10, 0, 20, 20], [70, 0, 96, 20], [86, 0, 96, 20]], [3, -1, 0], (50, 96))
        ),
        instances([], size=(50, 96)),
    ]
    ious = ProposalIoUs(anchors, deltas, TRANSFORM, gts)
    images, indices = torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1], [0, 1]])
    expected = [[0.5, 200 / 520], [0, 0]]
    assert torch.allclose(ious.of(images, indices), torch.tensor(expected), atol=1e-5)
    # Of the best-scored one only; the other never passes for a mistake
    scores = torch.tensor([[3.0, 2.0], [1.0, 2.0]])
    assert torch.allclose(ious.of_best(scores, 1), torch.tensor([[0.5, 1.0], [1.0, 0.0]]))


def test_no_objects_at_all():
    anchors = [Boxes(torch.tensor([[0.0, 0, 10, 10]]))]
    for gt in (instances([]), set_ignored_aside(instances([[0, 0, 10, 10]], [-1]))):
        ious = ProposalIoUs(anchors, [torch.zeros(1, 1, 4)], TRANSFORM, [gt])
        assert ious.of_best(torch.zeros(1, 1), 5).tolist() == [[0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_against_a_loop(dtype):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * 90
    boxes = torch.cat([corners, corners + 5 + 40 * torch.rand(60, 2, generator=generator)], dim=1)
    anchors = [Boxes(boxes[:40]), Boxes(boxes[40:])]  # two levels
    deltas = [torch.randn(2, n, 4, generator=generator).mul(0.3).to(dtype) for n in (40, 20)]
    gts = [instances(TWO_OBJECTS), instances([[5, 5, 90, 90], [20, 20, 60, 60], [0, 0, 9, 9]])]
    found = ProposalIoUs(anchors, deltas, TRANSFORM, gts).of_best(torch.zeros(2, 60), 60)
    for n, gt in enumerate(gts):
        proposals = Boxes(TRANSFORM.apply_deltas(torch.cat([d[n] for d in deltas]).float(), boxes))
        proposals.clip(gt.image_size)
        expected = pairwise_iou(proposals, gt.gt_boxes).max(dim=1).values
        assert torch.allclose(found[n], expected, atol=1e-5)


# ---- In the hub


class Recorder:
    """An objectness loss that keeps what it is given."""

    needs_all_anchors = False

    def __init__(self, iou_of):
        self.iou_of = iou_of

    def __call__(self, logits, labels, ious):
        self.labels, self.ious = labels, ious
        return bce(logits, labels)


def shifted(model, dx):
    """Make all proposals of the RPN its anchors moved by dx widths."""
    deltas = model.proposal_generator.rpn_head.anchor_deltas
    torch.nn.init.zeros_(deltas.weight)
    with torch.no_grad():
        deltas.bias.copy_(torch.tensor([dx, 0, 0, 0] * (len(deltas.bias) // 4)))
    return model


@pytest.mark.parametrize("backbone", ["vgg", "fpn"])
@pytest.mark.parametrize("sampler", ["Random", "OHEM", "NRPN"])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_loss_gets_the_ious_it_wants(backbone, sampler, autocast):
    cfg = small_cfg(backbone, "ProposalNetwork", MODEL__RPN__NEGATIVE_SAMPLER__NAME=sampler)
    model = build_model(cfg)
    inputs = batch(instances(TWO_OBJECTS), instances([]))
    given = {}
    for iou_of, dx in (("anchor", 0.0), ("proposal", 0.0), ("proposal", 9.0)):
        loss = model.proposal_generator.objectness_loss = Recorder(iou_of)
        model.proposal_generator.iou_of = iou_of
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses, _ = train_step(shifted(model, dx), inputs)
        assert losses["loss_rpn_cls"].isfinite() and loss.ious.dtype == torch.float32
        given[iou_of, dx] = loss.ious
    # Anchors that nothing moves are their proposals, but for what lies out of the image
    anchors, proposals = given["anchor", 0.0], given["proposal", 0.0]
    assert (anchors > 0.5).any() and (proposals >= anchors - 1e-4).all()
    # Nine widths to the right, hardly anything is left of an overlap
    assert given["proposal", 9.0].mean() < 0.1 * proposals.mean()


def test_a_loss_without_the_attribute_gets_the_anchors():
    model = build_model(small_cfg(MODEL__RPN__NEGATIVE_SAMPLER__NAME="Random"))
    assert model.proposal_generator.iou_of == "anchor"
    overrides = {"MODEL__RPN__OBJECTNESS_LOSS__NAME": "IoUTarget"}
    model = build_model(small_cfg(MODEL__RPN__NEGATIVE_SAMPLER__NAME="Random", **overrides))
    assert isinstance(model.proposal_generator.objectness_loss, IoUTarget)
    assert model.proposal_generator.iou_of == "proposal"


def recorded_step(model):
    """Which anchors a step mines, and whose hard negatives it takes."""
    rpn, calls = model.proposal_generator, {}
    find, propose = rpn.find_false_positives, rpn.propose_hard_negatives

    def find_recorded(scores, labels, ious):
        calls["ious"] = ious
        calls["found"] = find(scores, labels, ious)
        return calls["found"]

    def propose_recorded(logits, labels, anchors):
        calls["eligible"] = labels
        return propose(logits, labels, anchors)

    rpn.find_false_positives, rpn.propose_hard_negatives = find_recorded, propose_recorded
    train_step(model, batch(instances(TWO_OBJECTS)))
    return calls


@pytest.mark.parametrize("backbone", ["vgg", "fpn"])
def test_mining_by_proposals(backbone):
    options = {"MODEL__NRPN__FP_BY": "proposal", "MODEL__NRPN__FP_SELECT": "topk"}
    model = build_model(small_cfg(backbone, "ProposalNetwork", **options))
    calls = recorded_step(model)
    assert (calls["ious"] < 1).sum() <= 1000 and calls["found"].sum() == 16
    assert (calls["ious"][calls["found"]] < 0.3).all()
    assert 0 < (calls["eligible"] == 0).sum() <= 1000

    # Every proposal is where its anchor was plus a whole image: none is on an object
    calls = recorded_step(shifted(model, 200.0))
    assert (calls["ious"] < 1).sum() == min(1000, calls["ious"].numel())
    assert calls["ious"].min() == 0


def test_false_alarms_join_the_mini_batch():
    model = build_model(
        small_cfg(MODEL__NRPN__FP_SELECT="topk", MODEL__NRPN__BATCH_SIZE_PER_IMAGE=4)
    )
    rpn = model.proposal_generator
    counts = {}
    for alarms in (0, 8):
        rpn.num_false_alarms = alarms
        torch.manual_seed(0)
        losses, _ = train_step(model, batch(instances(TWO_OBJECTS)))
        # An untrained nRPN gives each anchor 0.5 or so, which costs log 2; the sum over the anchors
        # is divided by 4
        counts[alarms] = 4 * losses["loss_nrpn_cls"].item() / math.log(2)
    assert counts[0] == pytest.approx(4, abs=0.1)
    assert counts[8] > 8  # the alarms are its best-scored: each costs more than log 2


def test_false_positives_are_the_papers_by_default():
    rpn = build_model(small_cfg()).proposal_generator
    assert (rpn.fp_by, rpn.num_false_alarms) == ("anchor", 0)
    assert rpn.find_false_positives.func is false_positives
