"""Calibration and background at equal recall, worked out by hand."""

import math

import numpy as np
import pytest
from registered_dataset import proposals, registered

from nrpn_d2.evaluation.score_evaluator import (
    ScoreEvaluator,
    background_at_recall,
    calibration,
)


def test_calibration():
    # Bin 2: scores 0.2 and 0.28, mean 0.24; IoUs 0 and 0.4, mean 0.2: gap 0.04, weight 2 of 4.
    # Bin 9: scores 0.9 and 1, mean 0.95; IoUs 0.7 and 0.8, mean 0.75: gap 0.2, weight 2 of 4
    result = calibration(np.array([0.2, 0.28, 0.9, 1.0]), np.array([0, 0.4, 0.7, 0.8]))
    assert result["ECE"] == pytest.approx(0.5 * 0.04 + 0.5 * 0.2)
    assert (result["score:2"], result["IoU:2"]) == pytest.approx((0.24, 0.2))
    assert (result["score:9"], result["IoU:9"]) == pytest.approx((0.95, 0.75))
    assert [result[f"share:{b}"] for b in (2, 5, 9)] == [50, 0, 50]
    assert math.isnan(result["IoU:5"])


def test_perfect_scores_have_no_error():
    scores = np.random.default_rng(0).random(1000)
    assert calibration(scores, scores)["ECE"] == pytest.approx(0, abs=1e-12)
    assert math.isnan(calibration(np.empty(0), np.empty(0))["ECE"])


@pytest.mark.parametrize("recall, count", [(0.25, 1), (0.5, 2), (0.75, 3), (1.0, math.nan)])
def test_background_at_recall(recall, count):
    # Of four objects three are hit, at 0.9, 0.6 and 0.3
    hits, background = np.array([0.3, 0.9, 0.6]), np.array([0.95, 0.6, 0.4, 0.2])
    assert background_at_recall(hits, background, 4, recall) == pytest.approx(count, nan_ok=True)


def test_evaluator():
    # One object, one difficult one. Logit 0 is a score of 0.5
    objects = [[((0, 0, 10, 10), 0), ((50, 50, 60, 60), 0, 1)], []]
    found = [
        # a hit with IoU 0.5; on the difficult object; background
        ([[0, 0, 10, 5], [50, 50, 60, 60], [80, 80, 90, 90]], [2.0, 1.0, 0.0]),
        ([[0, 0, 5, 5]], [3.0]),  # background, in an image without objects
    ]
    with registered(objects, ["cat"]) as dataset:
        evaluator = ScoreEvaluator(dataset, budgets=(1, 3))
        for n, of_image in enumerate(found):
            evaluator.process([{"image_id": str(n)}], [proposals(*of_image)])
        results = evaluator.evaluate()["scores"]
    score = {x: 1 / (1 + math.exp(-x)) for x in (0.0, 2.0, 3.0)}
    # Bins 8 (2.0), 9 (3.0) and 5 (0.0), one proposal each
    gaps = [score[2.0] - 0.5, score[3.0], score[0.0]]
    assert results["ECE@1"] == pytest.approx(sum(gaps[:2]) / 2)
    assert results["ECE@3"] == pytest.approx(sum(gaps) / 3)
    # The only object is hit with logit 2; one background proposal of two images is over it
    assert results["background:50"] == results["background:90"] == 0.5
