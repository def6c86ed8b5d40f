import itertools
import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.evaluation.coco_evaluation import _evaluate_box_proposals
from registered_dataset import detected, near_boxes, proposals, random_boxes, registered

from nrpn_d2.evaluation import (
    ProposalRecallEvaluator,
    VOCDetectionEvaluator,
    load_ground_truth,
    recall_evaluator,
)


def evaluate(evaluator, outputs, image_ids=None):
    evaluator.reset()
    for n, output in enumerate(outputs):
        evaluator.process([{"image_id": image_ids[n] if image_ids else str(n)}], [output])
    return evaluator.evaluate()


SMALL, MEDIUM, LARGE = [0, 0, 10, 10], [50, 0, 100, 50], [100, 100, 250, 250]


def test_recall_by_budget_size_and_class():
    objects = [[(SMALL, 0), (MEDIUM, 1)], [(LARGE, 1)]]
    outputs = [
        proposals([MEDIUM, [200, 200, 300, 300], [0, 0, 10, 8]]),  # IoU 1, 0, 0.8
        proposals([[100, 100, 250, 190]]),  # IoU 0.6 with the large object
    ]
    with registered(objects, ["ring", "disc"]) as name:
        evaluator = ProposalRecallEvaluator(name, budgets=[1, 3], left_out=["disc"])
        results = evaluate(evaluator, outputs)["box_proposals"]
    # One proposal per image: the medium one is found, the large one at IoU 0.5 only.
    assert results["R50@1"] == pytest.approx(200 / 3)
    assert results["R70@1"] == results["R90@1"] == pytest.approx(100 / 3)
    assert [results[f"R50{z}@1"] for z in "sml"] == [0, 100, 100]
    # Three: the small one too, up to an IoU of 0.8.
    assert results["R50@3"] == 100 and results["R70@3"] == pytest.approx(200 / 3)
    # Thresholds reached of ten: 7 by IoU 0.8, 10 by IoU 1, 3 by IoU 0.6.
    assert results["ARs@3"] == pytest.approx(70)
    assert results["AR@3"] == pytest.approx(100 * (7 + 10 + 3) / 30)
    assert results["R70@3-ring"] == 100 and results["R70@3-disc"] == 50
    assert results["AR@3-ring"] == results["AR@3-seen"] == pytest.approx(70)
    assert results["AR@3-disc"] == results["AR@3-unseen"] == pytest.approx(100 * (10 + 3) / 20)


def test_proposals_count_by_score_and_not_by_position():
    with registered([[(SMALL, 0)]], ["ring"]) as name:
        evaluator = ProposalRecallEvaluator(name, budgets=[1])
        last_is_best = proposals([MEDIUM, SMALL], logits=[-1.0, 2.0])
        assert evaluate(evaluator, [last_is_best])["box_proposals"]["R50@1"] == 100


def test_without_a_budget_recall_is_that_of_the_model_as_it_is_configured():
    outputs = [
        proposals([LARGE, MEDIUM, SMALL], configured=2),
        proposals([MEDIUM], configured=2),  # NMS left one
    ]
    objects = [[(SMALL, 0), (MEDIUM, 0), (LARGE, 0)], [(MEDIUM, 0)]]
    with registered(objects, ["ring"]) as name:
        results = evaluate(ProposalRecallEvaluator(name, budgets=[1, 3]), outputs)["box_proposals"]
    assert [results[key] for key in ("R50@1", "R50", "R50@3")] == [50, 75, 100]
    assert [results[key] for key in ("ARs", "ARm", "AR-ring")] == [0, 100, 75]


def test_objects_of_images_without_proposals_count():
    objects = [[(SMALL, 0)], [(SMALL, 0)], [(SMALL, 0)], []]
    with registered(objects, ["ring"]) as name:
        evaluator = ProposalRecallEvaluator(name, budgets=[5])
        # One image found, one without proposals, one never processed, one without objects.
        results = evaluate(evaluator, [proposals([SMALL]), proposals([])])["box_proposals"]
        assert results["R50@5"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("kind", [1, "crowd"])
def test_difficult_objects_and_crowds_are_not_to_be_found_and_no_error(kind):
    with registered([[(SMALL, 0), (MEDIUM, 0, kind)]], ["ring"]) as name:
        evaluator = ProposalRecallEvaluator(name, budgets=[1])
        results = evaluate(evaluator, [proposals([SMALL])])["box_proposals"]
        both = detected([MEDIUM, SMALL], [0, 0], [0.9, 0.8])
        assert evaluate(VOCDetectionEvaluator(name), [both])["bbox"]["AP50"] == 100
    assert results["R50@1"] == 100 and np.isnan(results["R50m@1"])


def test_dataset_without_objects():
    with registered([[], []], ["ring"]) as name:
        results = evaluate(ProposalRecallEvaluator(name, budgets=[1]), [proposals([SMALL])] * 2)
        assert all(np.isnan(value) for value in results["box_proposals"].values())
        results = evaluate(VOCDetectionEvaluator(name), [detected([SMALL], [0], [0.5])] * 2)
        assert np.isnan(results["bbox"]["AP50"])


def test_images_are_matched_in_blocks(monkeypatch):
    rng = np.random.default_rng(6)
    objects = [random_boxes(rng, rng.integers(0, 4)) for _ in range(20)]
    outputs = []
    for boxes in objects:
        count = rng.integers(0, 40)
        near = near_boxes(rng, boxes, count) if len(boxes) else random_boxes(rng, count)
        # Neither sorted nor as many in each image
        outputs.append(proposals(near, logits=rng.permutation(count)))
    with registered([[(box, 0) for box in boxes] for boxes in objects], ["ring"]) as name:
        results = []
        for block in (1, 3, 64):
            monkeypatch.setattr(recall_evaluator, "BLOCK", block)
            results.append(evaluate(ProposalRecallEvaluator(name, budgets=[1, 5]), outputs))
        assert results[0] == results[1] == results[2]
        assert 0 < results[0]["box_proposals"]["AR@1"] < results[0]["box_proposals"]["AR@5"] < 100


def test_recall_curves_are_those_of_the_metrics():
    rng = np.random.default_rng(5)
    objects = [random_boxes(rng, 4) for _ in range(6)]
    outputs = [proposals(near_boxes(rng, boxes, 120, spread=0.2)) for boxes in objects]
    with registered([[(box, 0) for box in boxes] for boxes in objects], ["ring"]) as name:
        evaluator = ProposalRecallEvaluator(name, budgets=[10, 100])
        results = evaluate(evaluator, outputs)["box_proposals"]
    curves = evaluator.curves["recall"]
    assert curves["num_proposals"] == sorted(curves["num_proposals"])
    assert curves["num_proposals"][-1] <= 120 and 10 in curves["num_proposals"]
    for budget in (10, 100):
        at = curves["num_proposals"].index(budget)
        assert 100 * curves["recall_vs_num"]["AR"][at] == pytest.approx(results[f"AR@{budget}"])
        assert 100 * curves["recall_vs_num"]["0.7"][at] == pytest.approx(results[f"R70@{budget}"])
        by_iou = dict(zip(curves["iou"].tolist(), curves["recall_vs_iou"][str(budget)]))
        assert 100 * by_iou[0.9] == pytest.approx(results[f"R90@{budget}"])
        assert 0 < results[f"AR@{budget}"] < 100
    for curve in curves["recall_vs_num"].values():
        assert (np.diff(curve) >= 0).all()


def test_tables_show_every_budget(caplog):
    caplog.set_level(logging.INFO)
    with registered([[(SMALL, 0)]], ["ring", "disc"]) as name:
        evaluate(ProposalRecallEvaluator(name, budgets=[7, 9]), [proposals([SMALL])])
        evaluate(VOCDetectionEvaluator(name), [detected([SMALL], [0], [0.5])])
    rows = [line.split() for line in caplog.text.splitlines()]
    assert ["7", "S", "100.00", "100.00", "100.00", "100.00"] in rows
    assert ["as", "configured", "all", "100.00", "100.00", "100.00", "100.00"] in rows
    assert ["9", "L", "n/a", "n/a", "n/a", "n/a"] in rows
    assert ["#proposals", "ring", "disc", "mAP"] in rows
    assert ["as", "configured", "100.00", "n/a", "100.00"] in rows
    assert "class 'disc' has no object to be found" in caplog.text


def test_ap_by_class_and_metric():
    # Two rings, one found with an IoU of 0.8 and one missed; the disc is found exactly.
    objects = [[(LARGE, 0), (MEDIUM, 1)], [(LARGE, 0)]]
    outputs = [
        detected([[100, 100, 250, 220], MEDIUM], [0, 1], [0.9, 0.8]),
        detected([], [], []),
    ]
    with registered(objects, ["ring", "disc"], year=2007) as name:
        results = evaluate(VOCDetectionEvaluator(name), outputs)["bbox"]
        # Precision 1 up to recall 1/2: levels 0 to 0.5, 6 of 11.
        assert results["AP50-ring"] == pytest.approx(600 / 11)
        assert results["AP50_area-ring"] == pytest.approx(50)
        assert results["AP50-disc"] == pytest.approx(100)
        assert results["AP50"] == pytest.approx((600 / 11 + 100) / 2)
        assert results["AP75"] == results["AP50"]
        # 0.8 reaches seven of ten thresholds.
        assert results["AP-ring"] == pytest.approx(7 / 10 * 600 / 11)
    with registered(objects, ["ring", "disc"], year=2012) as name:
        area = evaluate(VOCDetectionEvaluator(name), outputs)["bbox"]
    assert area["AP50-ring"] == results["AP50_area-ring"]
    assert area["AP50_11point-ring"] == results["AP50-ring"]


def test_budgets_are_evaluated_each():
    none, one = detected([], [], []), detected([LARGE], [0], [0.5])
    output = {**one, "instances_at": {1: none["instances"], 5: one["instances"]}}
    with registered([[(LARGE, 0)]], ["ring"]) as name:
        results = evaluate(VOCDetectionEvaluator(name), [output])
    assert {task: values["AP50"] for task, values in results.items()} == {
        **{"bbox": 100, "bbox@1": 0, "bbox@5": 100}
    }


def test_foreign_and_repeated_images_are_refused():
    with registered([[(SMALL, 0)]], ["ring"], image_ids=["000001"]) as name:
        for evaluator, output in (
            (ProposalRecallEvaluator(name), proposals([SMALL])),
            (VOCDetectionEvaluator(name), detected([SMALL], [0], [1])),
        ):
            with pytest.raises(ValueError, match=f"'7' is not in dataset '{name}'.*'000001'"):
                evaluate(evaluator, [output], ["7"])
            with pytest.raises(ValueError, match="'000001' was processed twice"):
                evaluate(evaluator, [output] * 2, ["000001"] * 2)


def test_broken_outputs_are_refused():
    with registered([[(SMALL, 0)]], ["ring"]) as name:
        recall, ap = ProposalRecallEvaluator(name), VOCDetectionEvaluator(name)
        with pytest.raises(ValueError, match="image '0': box 0 .*NaN"):
            evaluate(recall, [proposals([[0, 0, np.nan, 1]])])
        with pytest.raises(ValueError, match="image '0': box 0 .*negative"):
            evaluate(ap, [detected([[5, 0, 1, 1]], [0], [1])])
        with pytest.raises(ValueError, match="classes are 1 to 1, but .* has 1 classes"):
            evaluate(ap, [detected([SMALL], [1], [1])])
        with pytest.raises(ValueError, match="no 'proposals'.*with_budgets"):
            evaluate(recall, [detected([SMALL], [0], [1])])
        with pytest.raises(ValueError, match="no 'instances'"):
            evaluate(ap, [proposals([SMALL])])
        with pytest.raises(ValueError, match=r"\(0, 1\]"):
            ProposalRecallEvaluator(name, iou_thresholds=[0.5, 50])


def test_recall_equals_detectron2s_where_every_image_has_proposals():
    rng = np.random.default_rng(3)
    objects, predictions, annotations = [], [], {}
    for n in range(30):
        boxes = near_boxes(rng, random_boxes(rng, 2), rng.integers(1, 12), spread=0.08)
        found = np.concatenate([near_boxes(rng, boxes, 20), random_boxes(rng, 40)])
        objects.append([(box, 0) for box in boxes])
        predictions.append({"image_id": n, **proposals(rng.permutation(found))})
        annotations[n] = [
            {"bbox": [x, y, X - x, Y - y], "area": (X - x) * (Y - y), "iscrowd": 0}
            for x, y, X, Y in boxes.tolist()
        ]
    # Detectron2 counts an area of exactly 32^2 twice; no object here has it.
    areas = {obj["area"] for of_image in annotations.values() for obj in of_image}
    assert not areas & {32**2, 96**2}
    coco = SimpleNamespace(getAnnIds=lambda imgIds: [imgIds], loadAnns=lambda n: annotations[n[0]])
    with registered(objects, ["ring"]) as name:
        evaluator = ProposalRecallEvaluator(name, budgets=[5, 20, 60])
        ours = evaluate(evaluator, predictions)["box_proposals"]
    for budget, size in itertools.product([5, 20, 60], ["small", "medium", "large", "all"]):
        theirs = _evaluate_box_proposals(predictions, coco, area=size, limit=budget)
        suffix = f"{size[0].replace('a', '')}@{budget}"
        expected = [theirs["ar"], *theirs["recalls"][[0, 4, 8]]]  # of IoU 0.5, 0.7 and 0.9
        values = [ours[metric + suffix] for metric in ("AR", "R50", "R70", "R90")]
        assert values == pytest.approx(100 * np.array(expected), abs=1e-4)


def write_voc(folder, objects, class_names):
    """The files that Detectron2's evaluator reads: one-based, inclusive corners."""
    for part in ("Annotations", "ImageSets/Main"):
        os.makedirs(folder / part)
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(map(str, range(len(objects)))))
    for n, of_image in enumerate(objects):
        lines = [
            f"<object><name>{class_names[c]}</name><pose>-</pose><truncated>0</truncated>"
            f"<difficult>{difficult}</difficult><bndbox><xmin>{box[0] + 1:.0f}</xmin>"
            f"<ymin>{box[1] + 1:.0f}</ymin><xmax>{box[2]:.0f}</xmax><ymax>{box[3]:.0f}</ymax>"
            "</bndbox></object>"
            for box, c, difficult in of_image
        ]
        text = f"<annotation>{''.join(lines)}</annotation>"
        (folder / "Annotations" / f"{n}.xml").write_text(text)


@pytest.mark.parametrize("year", [2007, 2012])
def test_ap_equals_detectron2s_where_its_text_files_round_nothing(tmp_path, year):
    rng = np.random.default_rng(year)
    objects, outputs = [], []
    scores = rng.permutation(1000)[:900].reshape(25, 36) / 1000  # it sorts equal ones at random
    for of_image in scores:
        boxes = random_boxes(rng, 6)
        objects.append([(b, rng.integers(0, 3), int(rng.random() < 0.2)) for b in boxes])
        near = near_boxes(rng, boxes, 36, spread=0.05).round(1)
        outputs.append(detected(near, rng.integers(0, 3, 36), of_image))
    names = ["ring", "disc", "star"]
    write_voc(tmp_path, objects, names)
    with registered(objects, names, dirname=str(tmp_path), split="test", year=year) as name:
        theirs = evaluate(PascalVOCDetectionEvaluator(name), outputs)["bbox"]
        ours = evaluate(VOCDetectionEvaluator(name), outputs)["bbox"]
        ground_truth = load_ground_truth(name)
    # Of 10 objects, Detectron2 puts the level 3 * 0.1 beyond a recall of 3 / 10
    counts = np.bincount(ground_truth.classes[~ground_truth.ignored])
    assert year != 2007 or (counts % 5 > 0).all()
    assert 5 < ours["AP50"] < 90
    for key in ("AP", "AP50", "AP75"):
        assert ours[key] == pytest.approx(theirs[key], abs=1e-9)
