"""The nRPN's head against Detectron2's RPN head, whose structure it has; its loss by hand."""

import math

import pytest
import torch
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead

from nrpn_d2.modeling.negative_rpn import ScoreHead, nrpn_loss
from nrpn_d2.modeling.samplers import NRPN


def test_score_head_is_the_rpns_without_deltas():
    theirs = StandardRPNHead(in_channels=8, num_anchors=3)
    ours = ScoreHead(in_channels=8, num_anchors=3)
    weights = {k: v for k, v in theirs.state_dict().items() if "deltas" not in k}
    for value in weights.values():
        torch.nn.init.normal_(value)
    ours.load_state_dict(weights)
    features = [torch.randn(2, 8, 5, 7), torch.randn(2, 8, 3, 4)]
    logits, _ = theirs(features)
    # Detectron2's RPN lays them out in the order of its anchors: cells, then anchors per cell
    expected = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in logits], dim=1)
    assert torch.equal(ours(features), expected) and expected.shape == (2, 3 * (35 + 12))


def test_initial_scores_are_undecided():
    torch.manual_seed(0)
    head = ScoreHead(in_channels=64, num_anchors=9)
    for layer in (head.conv, head.objectness_logits):
        assert not layer.bias.any()
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_the_false_alarms_are_the_best_scored_that_are_no_false_positives():
    # Image 0: anchor 0 is mined, 2 is ignored; 1 and 3 are the alarms. Image 1: only 4 can be one
    probabilities = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5]] * 2)
    labels = torch.tensor([[0, 0, -1, 0, 0], [0, 0, 0, -1, 1]], dtype=torch.int8)
    is_fp = torch.tensor([[True] + [False] * 4, [True] * 3 + [False] * 2])
    sampler = NRPN(batch_size_per_image=1, positive_fraction=1, hard_fraction=0)  # one positive
    torch.manual_seed(0)
    loss = nrpn_loss(probabilities.logit(), labels, is_fp, sampler, num_false_alarms=2)
    alarms = -math.log(0.2) - math.log(0.4) - math.log(0.5)
    options = [(alarms - math.log(0.9) - math.log(p)) / 2 for p in (0.9, 0.8, 0.7)]
    assert any(loss.item() == pytest.approx(x, abs=1e-5) for x in options)
    assert labels[0].tolist() == [0, 0, -1, 0, 0], "the input is left alone"
