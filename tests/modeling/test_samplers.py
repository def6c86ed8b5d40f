"""Samplers against naive loops, quotas, and Detectron2's own sampling."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling.sampling import subsample_labels
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from nrpn_d2 import NEGATIVE_SAMPLER_REGISTRY, add_nrpn_config
from nrpn_d2.modeling.samplers import NRPN, OHEM, All, IoUBalanced, Random, pick

INF = float("inf")


@st.composite
def anchors(draw):
    """Labels, distinct logits, IoUs (N, R) and a hardness with some anchors left out."""
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    weights = torch.tensor(
        draw(st.sampled_from([[1, 1, 1], [0, 1, 0], [1, 0, 1], [1, 8, 1]]))
    ).float()
    labels = torch.multinomial(weights, shape[0] * shape[1], True, generator=generator) - 1
    labels = labels.view(shape).to(torch.int8)
    logits = torch.rand(shape, generator=generator).argsort(1).argsort(1).float()
    ious = torch.rand(shape, generator=generator) * 0.3
    hardness = torch.rand(shape, generator=generator)
    hardness = hardness.masked_fill(
        (torch.rand(shape, generator=generator) < 0.5) | (labels != 0), -INF
    )
    return labels, logits, ious, hardness


def samplers(size, positive_fraction, hard_fraction):
    common = dict(
        batch_size_per_image=size, positive_fraction=positive_fraction, hard_fraction=hard_fraction
    )
    return [Random(**common), OHEM(**common), NRPN(**common), IoUBalanced(bins=3, **common)]


def quotas(labels, size, positive_fraction):
    """Numbers of positives and negatives to sample: Detectron2's rule, for one image."""
    num_pos = min(int((labels == 1).sum()), int(size * positive_fraction))
    num_neg = min(int((labels == 0).sum()), size - num_pos)
    return num_pos, num_neg


@settings(max_examples=60)
@given(
    anchors(),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([0, 0.3, 1]),
)
def test_quotas_and_membership(data, size, positive_fraction, hard_fraction):
    labels, logits, ious, hardness = data
    before = labels.clone()
    for sampler in samplers(size, positive_fraction, hard_fraction):
        sample = sampler(labels, logits, ious, hardness)
        assert torch.equal(labels, before), "the input is left alone"
        for given_, sampled, hard in zip(labels, sample.labels, sample.hard):
            num_pos, num_neg = quotas(given_, size, positive_fraction)
            assert (sampled == 1).sum() == num_pos and (sampled == 0).sum() == num_neg
            assert torch.equal(sampled[sampled >= 0], given_[sampled >= 0])
            assert (sampled[hard] == 0).all()


@settings(max_examples=60)
@given(anchors(), st.integers(1, 30), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_hard_ones_are_the_hardest(data, size, hard_fraction):
    labels, logits, ious, hardness = data
    for sampler, priority in ((OHEM, logits), (NRPN, hardness)):
        sample = sampler(
            batch_size_per_image=size, positive_fraction=0.5, hard_fraction=hard_fraction
        )(labels, logits, ious, hardness)
        for i in range(len(labels)):
            num_pos, _ = quotas(labels[i], size, 0.5)
            candidates = [
                a for a in range(labels.shape[1]) if labels[i, a] == 0 and priority[i, a] > -INF
            ]
            candidates.sort(key=lambda a: -priority[i, a])
            expected = candidates[: int((size - num_pos) * hard_fraction)]
            assert sample.hard[i].nonzero().flatten().tolist() == sorted(expected)


def test_nrpn_without_proposals_is_random():
    labels = torch.zeros(1, 50, dtype=torch.int8)
    sampler = NRPN(batch_size_per_image=10, positive_fraction=0.5, hard_fraction=1.0)
    sample = sampler(labels, labels.float(), labels.float(), torch.full((1, 50), -INF))
    assert not sample.hard.any() and (sample.labels == 0).sum() == 10


def test_iou_balanced_intervals():
    # Largest negative IoU 0.27 -> intervals [0, 0.09), [0.09, 0.18), [0.18, 0.27]; 6 negatives, two
    # of each. The third interval has only one anchor, so one more comes from the others.
    ious = torch.tensor([[0.0] * 20 + [0.1] * 10 + [0.27] + [0.9]])
    labels = torch.tensor([[0] * 31 + [1]])
    sampler = IoUBalanced(bins=3, batch_size_per_image=6, positive_fraction=0, hard_fraction=0)
    for _ in range(20):
        sampled = sampler(labels, ious, ious, ious).labels[0]
        low, middle, high = (sampled[:20] == 0).sum(), (sampled[20:30] == 0).sum(), sampled[30] == 0
        assert high and low >= 2 and middle >= 2 and low + middle == 5


def test_iou_balanced_without_overlap():
    labels = torch.zeros(1, 30)
    sampler = IoUBalanced(bins=3, batch_size_per_image=9, positive_fraction=0.5)
    assert (sampler(labels, labels, labels, labels).labels == 0).sum() == 9


@pytest.mark.parametrize("num_pos, num_neg", [(3, 60), (40, 60), (40, 5), (0, 60), (3, 0)])
def test_random_is_distributed_as_detectron2s(num_pos, num_neg):
    """Each anchor is drawn as often as by ``subsample_labels``; 20 draws, at most 10 positive."""
    trials, size = 3000, 20
    labels = torch.tensor([1] * num_pos + [0] * num_neg + [-1] * 5)
    torch.manual_seed(0)
    sampler = Random(batch_size_per_image=size, positive_fraction=0.5)
    batch = labels.expand(trials, -1)
    sampled = sampler(batch, *[batch.float()] * 3).labels
    ours = (sampled >= 0).sum(0)
    theirs = torch.zeros_like(ours)
    for _ in range(trials):
        theirs[torch.cat(subsample_labels(labels, size, 0.5, 0))] += 1
    assert (ours[-5:] == 0).all() and (theirs[-5:] == 0).all()
    for value in (1, 0):
        mine, other = ours[labels == value], theirs[labels == value]
        assert mine.sum() == other.sum()
        if 0 < mine.sum() < trials * len(mine):
            # draws without replacement vary less than the test assumes: it errs on the safe side
            assert chisquare(mine.numpy()).pvalue > 1e-3
            assert chi2_contingency([mine.tolist(), other.tolist()]).pvalue > 1e-3


def test_pick_on_ties_and_infinities():
    priority = torch.tensor([[1.0, 1.0, -INF, INF], [0.0, -1.0, 2.0, 3.0]])
    eligible = torch.tensor([[True, True, True, True], [True, True, True, False]])
    picked = pick(priority, eligible, torch.tensor([4, 1]), limit=4)
    assert picked.tolist() == [[True, True, False, True], [False, False, True, False]]


def test_all_keeps_every_label():
    labels = torch.tensor([[1, 0, -1, 0]])
    sample = All()(labels, None, None, None)
    assert torch.equal(sample.labels, labels) and not sample.hard.any()


def test_registered_samplers_follow_the_config():
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 10
    cfg.MODEL.RPN.POSITIVE_FRACTION = 0.3
    cfg.MODEL.RPN.NEGATIVE_SAMPLER.HARD_FRACTION = 0.5
    cfg.MODEL.RPN.NEGATIVE_SAMPLER.IOU_BINS = 2
    labels = torch.tensor([[1] * 20 + [0] * 20])
    for name in ("Random", "OHEM", "NRPN", "IoUBalanced"):
        sampler = NEGATIVE_SAMPLER_REGISTRY.get(name)(cfg)
        sample = sampler(
            labels, labels.float(), labels.float(), torch.where(labels == 0, 0.0, -INF)
        )
        assert (sample.labels == 1).sum() == 3 and (sample.labels == 0).sum() == 7
        # 7 negatives: half of them, rounded down; IoUBalanced: 7 // 2 from the lowest interval
        assert sample.hard.sum() == (0 if name == "Random" else 3)
        assert not sampler.keeps_all_anchors
    assert NEGATIVE_SAMPLER_REGISTRY.get("All")(cfg).keeps_all_anchors
