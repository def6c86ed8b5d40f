import logging

import numpy as np
import pytest
import torch
from registered_dataset import proposals, registered

from nrpn_d2.evaluation import ProposalErrorEvaluator
from nrpn_d2.evaluation.proposal_errors import KINDS, classify_proposals


def kinds_of(iou, ignored):
    off_crowds = np.zeros(len(iou), bool)
    kinds = classify_proposals(np.array(iou).T, np.array(ignored, bool), off_crowds)
    return [KINDS[k] for k in kinds]


def test_kinds_by_hand():
    iou = [
        [0.6, 0.1],  # the best-scored proposal of object 0
        [0.9, 0.7],  # overlaps object 0 more: a duplicate, although object 1 is still free
        [0.2, 0.5],  # finds object 1
        [0.49, 0.3],
        [0.3, 0.0],
        [0.29, 0.29],
    ]
    expected = "hit duplicate hit localisation localisation background"
    assert kinds_of(iou, [0, 0]) == expected.split()


def test_proposals_on_difficult_objects_are_no_error():
    iou = [[0.6, 0.0], [0.6, 0.0], [0.4, 0.1], [0.2, 0.1], [0.1, 0.7]]
    assert kinds_of(iou, [1, 0]) == "ignored ignored ignored background hit".split()


def test_without_objects_everything_is_background():
    none, three, two = (np.zeros(count, bool) for count in (0, 3, 2))
    assert classify_proposals(np.empty((0, 3)), none, three).tolist() == [3, 3, 3]
    assert classify_proposals(np.empty((2, 0)), two, none).tolist() == []


def scored(boxes, scores, configured=None):
    return proposals(boxes, torch.logit(torch.tensor(scores, dtype=torch.float64)), configured)


def evaluate(objects, outputs, budgets):
    """Return the evaluator's metrics and curves."""
    with registered(objects, ["ring"]) as name:
        evaluator = ProposalErrorEvaluator(name, budgets=budgets)
        for n, output in enumerate(outputs):
            evaluator.process([{"image_id": str(n)}], [output])
        return evaluator.evaluate()["proposal_errors"], evaluator.curves


ON, OFF = [0, 0, 10, 10], [100, 100, 110, 110]


def test_shares_by_budget_and_numbers_by_score(caplog):
    caplog.set_level(logging.INFO)
    outputs = [
        scored([OFF, ON, ON, OFF], [0.95, 0.8, 0.6, 0.4]),
        scored([OFF, OFF], [0.92, 0.75]),  # no object
        scored([], []),  # no object
        scored([ON], [0.99]),  # a difficult object only
    ]
    results, curves = evaluate([[(ON, 0)], [], [], [(ON, 0, 1)]], outputs, [1, 4])
    # The best of each image: two background, one ignored.
    assert results["background@1"] == pytest.approx(200 / 3)
    assert results["hit@1"] == 0 and results["ignored@1"] == pytest.approx(100 / 3)
    # All seven: one hit, one duplicate, four background, one ignored.
    assert [results[f"{kind}@4"] for kind in KINDS] == pytest.approx(
        [100 / 7, 100 / 7, 0, 400 / 7, 100 / 7]
    )
    assert curves["errors"]["4"]["hit"] == results["hit@4"] == results["hit"]
    # Of four images, above 0.7: three background and a hit; above 0.9: two background.
    assert results["background>0.7"] == 3 / 4 and results["hit>0.7"] == 1 / 4
    assert results["background>0.9"] == 2 / 4 and results["hit>0.9"] == 0
    assert results["duplicate>0.5"] == 1 / 4 and results["background>0.5"] == 3 / 4
    # Two images without objects; the one with a difficult object is none of them.
    assert results["on_empty>0.7"] == 2 / 2 and results["on_empty>0.9"] == 1 / 2
    rows = [line.split() for line in caplog.text.splitlines()]
    assert "score > 0.9 per image 0.00 0.00 0.00 0.50 0.25 0.50".split() in rows


def test_proposals_on_a_crowd_are_no_error():
    crowd, inside, half, third = [0, 0, 100, 100], [0, 0, 10, 10], [95, 0, 105, 10], [98, 0, 104, 5]
    person = [20, 20, 40, 40]
    objects = [(crowd, 0, "crowd"), (person, 0)]
    boxes, scores = [inside, half, third, person], [0.9, 0.8, 0.7, 0.6]
    results, _ = evaluate([objects], [scored(boxes, scores)], [4])
    assert {kind: results[f"{kind}@4"] for kind in ("hit", "background", "ignored")} == {
        "hit": 25,  # the person, although it is in the crowd
        "background": 25,
        "ignored": 50,
    }


def test_scores_of_logits_far_from_zero(recwarn):
    output = proposals([ON, OFF], [1000.0, -1000.0])
    results, _ = evaluate([[(ON, 0)]], [output], [2])
    assert results["hit>0.9"] == 1 and results["background>0.5"] == 0
    assert not recwarn.list


def test_nothing_to_count():
    results, curves = evaluate([[(ON, 0)]], [scored([], [])], [1])
    assert np.isnan(results["hit@1"]) and np.isnan(results["on_empty>0.5"])
    assert results["background>0.5"] == 0 and curves["false_positives"]["recall"] == [0]


def test_without_a_budget_errors_are_those_of_the_model_as_it_is_configured():
    output = scored([ON, OFF, OFF, OFF], [0.9, 0.8, 0.8, 0.8], configured=2)
    results, _ = evaluate([[(ON, 0)]], [output], [1, 4])
    assert [results[key] for key in ("hit@1", "hit", "hit@4")] == [100, 50, 25]
    assert results["background>0.7"] == 1


def test_recall_against_false_positives_by_hand():
    # By score: hit, background, hit, background, duplicate; one of three objects is never found,
    # and the difficult one is not to be found. In two images, a background proposal is 0.5.
    outputs = [
        scored([ON, OFF, OFF, ON], [0.9, 0.8, 0.6, 0.5]),
        scored([ON], [0.7]),
    ]
    objects = [[(ON, 0), ([50, 50, 60, 60], 0)], [(ON, 0), ([50, 50, 60, 60], 0, 1)]]
    _, curves = evaluate(objects, outputs, [4])
    per_image, recall = curves["false_positives"].values()
    assert per_image[0] == 0.01 and 0.95 < per_image[-1] <= 1
    np.testing.assert_allclose(recall[per_image < 0.5], 1 / 3)
    np.testing.assert_allclose(recall[per_image > 0.5], 2 / 3)
