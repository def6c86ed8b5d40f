import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from registered_dataset import registered

from nrpn_d2.evaluation.mistakes import KINDS, THRESHOLDS, MistakeEvaluator, best_threshold, rates

A, B, FAR = [0, 0, 10, 10], [20, 20, 30, 30], [80, 80, 90, 90]
SHIFTED = [0, 0, 10, 25]  # IoU 0.4 with A


def detections(*rows):
    """Rows of box, class, score."""
    found = Instances((100, 100))
    boxes, classes, scores = zip(*rows) if rows else ((), (), ())
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.pred_classes, found.scores = torch.tensor(classes).long(), torch.tensor(scores)
    return {"instances": found}


def evaluate(objects, outputs, **settings):
    """Return metrics, curves and the file of the images."""
    with registered(objects, ["cat", "dog"]) as name:
        evaluator = MistakeEvaluator(name, **settings)
        for n, output in enumerate(outputs):
            evaluator.process([{"image_id": str(n)}], [output])
        results = evaluator.evaluate()["mistakes"]
    file = json.loads(json.dumps(evaluator.files["mistakes.json"]))
    return results, evaluator.curves["mistakes"], file


def kinds_of(file, n=0):
    return [file["kinds"][row[-1]] for row in file["images"][n]["detections"]]


def test_kinds_and_confusions_by_hand():
    rows = [
        (A, 0, 0.95),  # a hit
        (A, 0, 0.94),  # again
        (B, 0, 0.93),  # a dog, taken for a cat
        (SHIFTED, 0, 0.92),
        (FAR, 1, 0.91),
        (FAR, 0, 0.9),
    ]
    right = [[(B, 1)], detections((B, 1, 0.9))]
    images = [[(A, 0), (B, 1)], detections(*rows)], *[right] * 9, [[(A, 0)], detections()]
    results, curves, file = evaluate(*zip(*images))
    assert kinds_of(file) == "hit duplicate class localisation background background".split()
    assert results["threshold"] <= 0.9
    # 10 of the 12 objects are found by 15 detections
    assert results["recall"] == pytest.approx(1000 / 12)
    assert results["precision"] == pytest.approx(1000 / 15)
    assert results["F1"] == pytest.approx(2000 / 27)
    assert results["missed"] * 11 == pytest.approx(2)
    assert {k: round(results[k] * 11) for k in KINDS} == dict(zip(KINDS, (10, 1, 1, 1, 2, 0)))
    assert results["recall-cat"] == 50 and results["recall-dog"] == 90
    # cat: found and missed; dog: one taken for a cat, nine found; background: two cats, a dog
    expected = [[0, 0, 1], [0, 2, 1], [1, 0, 1], [1, 1, 9], [2, 0, 2], [2, 1, 1]]
    assert curves["confusions"] == expected and curves["objects"] == {"cat": 2, "dog": 10}
    assert [row[-1] for row in file["images"][0]["objects"]] == [1, 0]
    assert [row[-1] for row in file["images"][10]["objects"]] == [0]


def test_a_difficult_object_is_neither_missed_nor_an_error():
    results, curves, file = evaluate(
        [[(A, 0, 1), (B, 1, 1), (FAR, 0)]], [detections((A, 0, 0.9), (FAR, 0, 0.8))]
    )
    assert kinds_of(file) == ["ignored", "hit"] and results["precision"] == 100
    assert curves["confusions"] == [[0, 0, 1]] and results["missed"] == 0
    assert [row[-1] for row in file["images"][0]["objects"]] == [2, 2, 1]


def test_what_lies_on_a_crowd_of_its_class_is_no_error():
    crowd = (0, 0, 40, 40), 0, "crowd"
    rows = (A, 0, 0.9), (B, 0, 0.9), (A, 1, 0.9), (FAR, 0, 0.9)
    _, _, file = evaluate([[crowd, (B, 0)]], [detections(*rows)])
    assert kinds_of(file) == ["ignored", "hit", "background", "background"]


def test_the_threshold_keeps_hits_and_drops_errors():
    rows = [(A, 0, 0.8), (FAR, 0, 0.3), (FAR, 1, 0.2)]
    results, curves, file = evaluate([[(A, 0)]], [detections(*rows)])
    assert 0.3 < results["threshold"] <= 0.8 and results["F1"] == 100
    assert len(file["images"][0]["detections"]) == 1
    at = {score: THRESHOLDS.searchsorted(score) for score in (0, 0.25, 0.5)}
    assert [curves["precision"][i] for i in at.values()] == pytest.approx([1 / 3, 1 / 2, 1])
    assert np.isnan(curves["precision"][-1]) and curves["recall"][-1] == 0


def test_proposals_are_of_one_class_and_duplicates_no_error():
    proposals = Instances((100, 100))
    proposals.proposal_boxes = Boxes(torch.tensor([A, A, B, FAR], dtype=torch.float32))
    proposals.objectness_logits = torch.tensor([3.0, 3.0, 2.0, -1.0])
    output = {"proposals": proposals}
    results, _, file = evaluate([[(A, 0), (B, 1)]], [output], class_agnostic=True)
    assert results["precision"] == results["recall-object"] == 100
    assert kinds_of(file) == ["hit", "duplicate", "hit"] and file["classes"] == ["object"]


@pytest.mark.parametrize("objects", [[], [(A, 0)]])
def test_nothing_is_found(objects):
    assert np.isnan(evaluate([objects], [detections((FAR, 0, 0.9))])[0]["threshold"])
    results, curves, _ = evaluate([objects], [detections()])
    assert np.isnan(results["precision"]) and results["missed"] == len(objects)
    assert np.isnan([results["threshold"], results["threshold-dog"]]).all()
    assert curves["confusions"] == [[0, 2, 1]] * len(objects)


def test_of_equal_thresholds_the_middle_one():
    assert best_threshold(np.array([0.1, 0.5, 0.5, 0.5, 0.2, 0.5])) == 2
    assert best_threshold(np.array([0.5, np.nan, 0.2])) == 0
    assert best_threshold(np.array([np.nan] * 3)) == 1
    assert np.isnan(rates(np.zeros(2), np.zeros(2), 0)["F1"]).all()
