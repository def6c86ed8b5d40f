"""What is a candidate of an audit, and in which order they stand."""

import numpy as np
import pytest

from nrpn_d2.evaluation.audit import Predictions, find_candidates
from nrpn_d2.evaluation.ground_truth import GroundTruth

LABEL, CROWD = (0, 0, 10, 10), (50, 50, 90, 90)
FREE, OTHER = (20, 20, 30, 30), (30, 0, 45, 10)


def truth(*images):
    """Image ids; the first has a label and a crowd."""
    return GroundTruth(
        "set",
        ["cat", "dog"],
        {image_id: n for n, image_id in enumerate(images)},
        np.array([LABEL, CROWD], float),
        np.array([0, 1]),
        np.array([False, True]),
        np.array([False, True]),
        np.array([0, 0]),
    )


def found(*boxes):
    """Predictions of (box, score, class)."""
    boxes, scores, classes = zip(*boxes) if boxes else ((), (), ())
    shape = np.array(boxes, np.float32).reshape(-1, 4)
    return Predictions(shape, np.array(scores, np.float32), np.array(classes, int))


def test_only_what_lies_off_every_label_is_a_candidate():
    on_label = (2, 0, 12, 10)  # IoU 2/3
    in_crowd = (60, 60, 66, 66)  # small, so its IoU is small, too
    beside = (8, 0, 18, 10)  # IoU 1/9
    sliver = (99.4, 30, 100, 60)  # less than a pixel wide
    boxes = [(on_label, 0.9, 0), (in_crowd, 0.9, 1), (beside, 0.8, 0), (FREE, 0.7, 1)]
    boxes = found(*boxes, (sliver, 0.9, 0))
    candidates = find_candidates([{"a": boxes}], truth("a"))
    assert [c.box for c in candidates] == [beside, FREE]
    assert [c.class_name for c in candidates] == ["cat", "dog"]


def test_agreement_times_mean_score_decides():
    shifted = (21, 20, 31, 30)  # IoU 9/11 with FREE
    first = found((FREE, 0.6, 1), (OTHER, 0.9, 0))
    second = found((shifted, 0.5, 1), (FREE, 0.4, 0))
    best, other = find_candidates([{"a": first}, {"a": second}], truth("a"))
    assert best.score == pytest.approx(0.55) and best.agreement == 1 and best.class_name == "dog"
    assert 20 < best.box[0] < 21
    assert other.box == OTHER and other.score == pytest.approx(0.45) and other.agreement == 0.5


def test_an_image_is_judged_by_the_models_that_have_it():
    folds = {"a": found()}, {"b": found((FREE, 0.9, 0))}
    (candidate,) = find_candidates(folds, truth("a", "b"))
    assert candidate.image_id == "b" and candidate.agreement == 1
    assert candidate.score == pytest.approx(0.9)


@pytest.mark.parametrize("score", [0.9, 0])
def test_proposals_suggest_no_class(score):
    (candidate,) = find_candidates([{"a": found((FREE, score, -1))}], truth("a"))
    assert candidate.class_name == "" and candidate.box == FREE


def test_where_one_fold_has_too_little_none_is_judged_again():
    rng, boxes = np.random.default_rng(0), found((LABEL, 0.9, 0), (FREE, 0.9, 0))
    features = np.array([1, -1])[:, None, None] + rng.normal(0, 0.1, (80, 2, 1, 8))
    images = [boxes._replace(features=x.astype(np.float16)) for x in features]
    labels = np.repeat([LABEL], 80, axis=0).astype(float)
    no = np.zeros(80, bool)
    data = GroundTruth("set", ["cat"], {n: n for n in range(80)}, labels, no * 1, no, no, range(80))
    folds = [dict(enumerate(images[:70])), dict(enumerate(images[70:], 70))]
    assert {c.score for c in find_candidates(folds, data)} == {0.9}
    assert max(c.score for c in find_candidates(folds[:1], data)) < 0.9  # as it is judged alone
