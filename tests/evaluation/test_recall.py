import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registered_dataset import near_boxes, random_boxes

from nrpn_d2.evaluation.recall import (
    AR_THRESHOLDS,
    Pairs,
    average_recall,
    close_pairs,
    covered_overlaps,
    in_size_ranges,
    recall,
)
from nrpn_d2.utils.boxes import box_iou


def covered(*matrices, budgets, in_range=None, floor=0.5):
    """The overlaps (B, Z, G) for the IoU matrices (G, K) of some images; Z = 1 without ranges."""
    close = [np.nonzero(iou >= floor) for iou in matrices]
    first = np.cumsum([0] + [len(iou) for iou in matrices])
    pairs = Pairs(
        np.concatenate([g + start for (g, _), start in zip(close, first)]),
        np.concatenate([k for _, k in close]),
        np.concatenate([iou[at] for iou, at in zip(matrices, close)]),
    )
    images = np.repeat(np.arange(len(matrices)), np.diff(first))
    if in_range is None:
        in_range = np.ones((1, len(images)), bool)
    return covered_overlaps(pairs, images, budgets, in_range)


def test_box_iou_by_hand():
    # 10x10 and 10x10, shifted by 5: intersection 50, union 150
    a, b = np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 15, 10])
    assert box_iou(a, b) == pytest.approx(50 / 150)
    assert box_iou(a, np.array([20.0, 20, 30, 30])) == 0
    empty = np.array([3.0, 3, 3, 3])
    assert box_iou(empty, empty) == 0


def test_greedy_matching_gives_each_proposal_to_one_object():
    # Proposal 0 is best for both objects; object 0 has the larger IoU and takes it, object 1 is
    # left with proposal 1.
    iou = np.array([[0.9, 0.1], [0.8, 0.6]])
    np.testing.assert_allclose(covered(iou, budgets=[2])[0], [[0.9, 0.6]])
    # With one proposal, one object stays uncovered.
    np.testing.assert_allclose(covered(iou, budgets=[1])[0], [[0.9, 0.0]])


def test_size_ranges_include_their_lower_bound():
    # Table 2 of the paper: a < 32^2 is small, 32^2 <= a < 96^2 medium, 96^2 <= a large.
    areas = np.array([0, 1023.9, 1024, 9215.9, 9216, 1e7])
    small, medium, large, every = in_size_ranges(areas)
    assert small.tolist() == [True, True, False, False, False, False]
    assert medium.tolist() == [False, False, True, True, False, False]
    assert large.tolist() == [False, False, False, False, True, True]
    assert every.all()


def test_recall_by_hand():
    overlaps = np.array([0.5, 0.7, 0.95, 0.0, np.nan])
    # Four objects count. At least 0.5: three; at least 0.7: two; at least 0.9: one.
    np.testing.assert_allclose(recall(overlaps, [0.5, 0.7, 0.9]), [0.75, 0.5, 0.25])
    # 0.5 reaches 1 of the 10 thresholds, 0.7 reaches 5, 0.95 all 10: 16 / (4 * 10).
    assert average_recall(overlaps) == pytest.approx(0.4)


def test_recall_without_objects_is_not_a_number():
    assert np.isnan(recall(np.empty((2, 0)), [0.5])).all()
    assert np.isnan(average_recall(np.array([np.nan])))


def test_exact_overlaps_reach_their_threshold():
    # 7 of 10 pixels: an IoU of exactly 0.7, and so for the other thresholds.
    for threshold in AR_THRESHOLDS:
        inner = np.array([0.0, 0, round(100 * threshold), 1])
        iou = box_iou(inner, np.array([0.0, 0, 100, 1]))
        assert recall(iou[None], [threshold]) == 1


def matched_pair_by_pair(iou):
    expected, used = np.zeros(len(iou)), set()
    for g, k in sorted(np.ndindex(iou.shape), key=lambda pair: -iou[pair]):
        if ("g", g) not in used and ("k", k) not in used:
            expected[g] = iou[g, k]
            used |= {("g", g), ("k", k)}
    return expected


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7))))
def test_greedy_matching_takes_pairs_in_order_of_iou(seed, shapes):
    rng = np.random.default_rng(seed)
    scenes = [rng.random(shape) for shape in [*shapes, (2, 3)]]
    budgets = [4, 1, 9]
    sizes = rng.random((2, sum(map(len, scenes)))) < 0.6
    overlaps = covered(*scenes, budgets=budgets, in_range=sizes, floor=0.0)
    # Pairs below the floor are left out and change nothing above it.
    floored = covered(*scenes, budgets=budgets, in_range=sizes, floor=0.5)
    for b, z in itertools.product(range(3), range(2)):
        start = 0
        for iou in scenes:
            of_image = slice(start, start + len(iou))
            start += len(iou)
            members = sizes[z, of_image]
            within = iou[members, : budgets[b]]
            expected = np.full(len(iou), np.nan)
            expected[members] = matched_pair_by_pair(within)
            np.testing.assert_array_equal(overlaps[b, z, of_image], expected)
            expected[expected < 0.5] = 0
            np.testing.assert_array_equal(floored[b, z, of_image], expected)


def test_close_pairs_are_all_found():
    rng = np.random.default_rng(2)
    for floor in (0.3, 0.5, 0.9):
        # Images with several objects and none, with many proposals, few, and none
        sizes = [(2, 50), (0, 20), (5, 300), (3, 0), (5, 7)]
        objects = [random_boxes(rng, count).astype(np.float64) for count, _ in sizes]
        proposals = [
            near_boxes(rng, boxes, count, spread=0.1) if count and len(boxes) else boxes[:0]
            for boxes, (_, count) in zip(objects, sizes)
        ]
        images, g, k = close_pairs(objects, proposals, floor)
        assert (np.diff(images * 10**6 + g * 1000 + k) > 0).all()
        for n, (of_image, found) in enumerate(zip(objects, proposals)):
            iou = box_iou(of_image[:, None], found)
            close = np.zeros(iou.shape, bool)
            close[g[images == n], k[images == n]] = True
            assert close[iou >= floor].all() and not close[iou < 0.99 * floor].any()
        assert 0 < (images == 2).sum() < 5 * 300


def test_close_pairs_at_the_bounds():
    def count(obj, proposals, floor):
        proposals = [np.array(proposals, float), np.zeros((3, 4))]
        return len(close_pairs([np.array([obj], float), np.zeros((0, 4))], proposals, floor)[0])

    assert count([0, 0, 10, 1], [[0, 0, 7, 1]], 0.7) == 1  # 7 of 10 pixels: exactly the floor
    # A point overlaps nothing, neither itself nor the filling behind an image's proposals
    assert count([0, 0, 0, 0], [[0, 0, 0, 0]], 0.5) == 0
