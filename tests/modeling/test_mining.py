"""The miner against naive loops on random cases."""

import torch
from detectron2.structures import Boxes, pairwise_iou
from hypothesis import given, settings
from hypothesis import strategies as st

from nrpn_d2.modeling import mining
from nrpn_d2.modeling.mining import false_positives, hard_negatives

INF = float("inf")


@st.composite
def anchors(draw):
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 30))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = torch.randint(-1, 2, shape, generator=generator, dtype=torch.int8)
    logits = torch.randn(shape, generator=generator) * 3
    ious = torch.rand(shape, generator=generator) * 0.6
    return logits, labels, ious


@given(anchors(), st.floats(0.1, 0.9), st.floats(0.05, 0.5))
def test_threshold_is_the_papers_definition(data, score, iou):
    logits, labels, ious = data
    found = false_positives(logits, labels, ious, select=mining.threshold, score=score, iou=iou)
    probabilities = logits.sigmoid()
    for i in range(logits.shape[0]):
        for a in range(logits.shape[1]):
            expected = probabilities[i, a] > score and ious[i, a] < iou and labels[i, a] == 0
            assert found[i, a] == expected


@given(anchors(), st.integers(1, 40))
def test_topk_is_the_best_scored_background(data, topk):
    logits, labels, ious = data
    found = false_positives(logits, labels, ious, select=mining.topk, topk=topk)
    for i in range(logits.shape[0]):
        background = [a for a in range(logits.shape[1]) if labels[i, a] == 0 and ious[i, a] < 0.3]
        background.sort(key=lambda a: -logits[i, a])
        assert found[i].nonzero().flatten().tolist() == sorted(background[:topk])


def test_papers_thresholds_are_the_defaults():
    # logit(0.7) = 0.8473; the fourth anchor is the best one of an object in spite of its IoU
    logits = torch.tensor([[0.84, 0.86, 0.86, 0.86]])
    found = false_positives(
        logits, torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0.0, 0.29, 0.3, 0.1]])
    )
    assert found.tolist() == [[False, True, False, False]]


def test_a_miner_chooses_from_the_background_alone():
    def everything(logits, ious, background, *, score, topk):
        return torch.ones_like(background)

    labels, ious = torch.tensor([[0, 0, 1, -1]]), torch.tensor([[0.0, 0.3, 0.0, 0.0]])
    found = false_positives(torch.zeros(1, 4), labels, ious, select=everything)
    assert found.tolist() == [[True, False, False, False]]


def test_overestimates():
    # scores 0.9, 0.8, 0.6, 0.9; minus IoUs of 0.25, 0.05, 0, 0.1: 0.65, 0.75, 0.6, and an object
    scores, ious = torch.tensor([[0.9, 0.8, 0.6, 0.9]]), torch.tensor([[0.25, 0.05, 0.0, 0.1]])
    labels = torch.tensor([[0, 0, 0, 1]])
    found = false_positives(scores.logit(), labels, ious, select=mining.overestimate, score=0.62)
    assert found.tolist() == [[True, True, False, False]]
    found = false_positives(scores.logit(), labels, ious, select=mining.overestimate_topk, topk=1)
    assert found.tolist() == [[False, True, False, False]]
    # FP_IOU holds here, too
    found = false_positives(
        scores.logit(), labels, ious, select=mining.overestimate_topk, topk=2, iou=0.2
    )
    assert found.tolist() == [[False, True, True, False]]


def naive_proposals(scores, labels, boxes, pre_nms_topk, nms_thresh):
    order = sorted((a for a in range(len(labels)) if labels[a] == 0), key=lambda a: -scores[a])
    iou = pairwise_iou(Boxes(boxes), Boxes(boxes))
    kept = []
    for a in order[:pre_nms_topk]:
        if all(iou[a, b] <= nms_thresh for b in kept):
            kept.append(a)
    return kept


@settings(max_examples=60)
@given(anchors(), st.integers(1, 40), st.sampled_from([0.3, 0.7, 1.0]), st.integers(0, 2**31))
def test_hard_negatives(data, pre_nms_topk, nms_thresh, seed):
    logits, labels, _ = data
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(logits.shape[1], 2, generator=generator) * 20 - 15  # also outside the image
    boxes = torch.cat(
        [corner, corner + 2 + torch.rand(logits.shape[1], 2, generator=generator) * 15], dim=1
    )
    proposed = hard_negatives(
        logits, labels, boxes, pre_nms_topk=pre_nms_topk, nms_thresh=nms_thresh
    )
    for i in range(logits.shape[0]):
        expected = naive_proposals(logits[i], labels[i], boxes, pre_nms_topk, nms_thresh)
        assert (proposed[i] > -INF).nonzero().flatten().tolist() == sorted(expected)
        assert torch.equal(proposed[i, expected], logits[i, expected])


def test_images_do_not_suppress_each_other():
    # The same box in two images, with coordinates below zero
    boxes = torch.tensor([[-9.0, -9.0, 9.0, 9.0]])
    proposed = hard_negatives(
        torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1), boxes, pre_nms_topk=5, nms_thresh=0.1
    )
    assert proposed.tolist() == [[1.0], [2.0]]


def test_no_background():
    labels = torch.ones(1, 3)
    boxes = torch.tensor([[0.0, 0, 1, 1]]).expand(3, 4)
    proposed = hard_negatives(torch.zeros(1, 3), labels, boxes, pre_nms_topk=5, nms_thresh=0.7)
    assert (proposed == -INF).all()
    assert not false_positives(torch.full((1, 3), 9.0), labels, torch.zeros(1, 3)).any()
