"""The nRPN's head against Detectron2's RPN head, whose structure it has."""

import pytest
import torch
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead

from nrpn_d2.modeling.negative_rpn import ScoreHead


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
