import numpy as np
import pytest

from nrpn_d2.evaluation.ground_truth import GroundTruth
from nrpn_d2.evaluation.voc_ap import (
    PrecisionRecall,
    average_precision,
    best_objects,
    evaluate_detections,
    precision_at,
    precision_recall,
)
from nrpn_d2.evaluation.voc_evaluator import RECALL_LEVELS


def dataset(boxes, classes=None, ignored=None, images=None, num_classes=1, num_images=1):
    count = len(boxes)
    return GroundTruth(
        dataset_name="by hand",
        class_names=[f"class {c}" for c in range(num_classes)],
        image_index={str(n): n for n in range(num_images)},
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        classes=np.array(classes or [0] * count, int),
        ignored=np.array(ignored or [0] * count, bool),
        crowd=np.zeros(count, bool),
        images=np.array(images or [0] * count, int),
    )


def detections(*rows):
    """Rows of image, class, score, box."""
    images, classes, scores, boxes = zip(*rows) if rows else ((), (), (), ())
    return (
        np.array(images, int),
        np.array(classes, int),
        np.array(scores, np.float32),
        np.array(boxes, np.float32).reshape(-1, 4),
    )


def test_eleven_point_rule_by_hand():
    # Four objects. By score: right, wrong, right, wrong, right; one object is never found.
    #   recall     1/4  1/4  2/4  2/4  3/4
    #   precision  1    1/2  2/3  2/4  3/5
    # Best precision at recall >= 0, 0.1, 0.2: 1; >= 0.3, 0.4, 0.5: 2/3; >= 0.6, 0.7: 3/5;
    # >= 0.8, 0.9, 1: 0. The sum is 3 + 2 + 6/5 = 6.2.
    curve = precision_recall(np.array([2, -1, 0, -1, 3]), np.zeros(4, bool), 4)
    np.testing.assert_allclose(curve.recall, [1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4])
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 2 / 4, 3 / 5])
    assert average_precision(curve, "11point") == pytest.approx(6.2 / 11)
    # Area: a quarter each at 1, 2/3 and 3/5.
    assert average_precision(curve, "area") == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)


def test_recall_of_exactly_a_tenth_reaches_its_level():
    # Three of ten objects, all right: recall 0.3 counts for levels 0, 0.1, 0.2 and 0.3, although
    # 3 * 0.1 is more than 0.3 in floating point.
    curve = PrecisionRecall(np.array([1, 2, 3]) / 10, np.ones(3))
    assert average_precision(curve, "11point") == pytest.approx(4 / 11)


def test_perfect_and_absent_detections():
    perfect = PrecisionRecall(np.array([0.5, 1.0]), np.ones(2))
    nothing = PrecisionRecall(np.empty(0), np.empty(0))
    for metric in ("11point", "area"):
        assert average_precision(perfect, metric) == pytest.approx(1)
        assert average_precision(nothing, metric) == 0


def test_a_second_detection_of_an_object_is_wrong():
    curve = precision_recall(np.array([0, 0]), np.zeros(1, bool), 1)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2])


def test_detections_of_difficult_objects_do_not_count():
    # Object 1 is difficult: the two detections on it vanish from the curve.
    curve = precision_recall(np.array([1, 0, 1]), np.array([False, True]), 1)
    np.testing.assert_array_equal(curve.recall, [1])
    np.testing.assert_array_equal(curve.precision, [1])


def test_best_objects_stay_within_image_and_class():
    boxes = np.array([[0.0, 0, 10, 10], [0.0, 0, 10, 10], [0.0, 0, 10, 10]])
    gt_boxes = np.array([[0.0, 0, 10, 5], [0.0, 0, 10, 8], [0.0, 0, 10, 8], [0.0, 0, 10, 10]])
    iou, best = best_objects(boxes, np.array([4, 2, 9]), gt_boxes, np.array([4, 4, 4, 2]))
    # Group 4: IoU 0.5, 0.8 and 0.8, the first of equals wins; group 2: the same box; group 9: none.
    np.testing.assert_allclose(iou, [0.8, 1.0, -np.inf])
    np.testing.assert_array_equal(best, [1, 3, -1])


def test_a_difficult_object_hides_the_one_behind_it():
    # As in the devkit, the detection belongs to the object it overlaps most, even if that one is
    # difficult and the other would do: object 0 stays unfound, and nothing counts as wrong.
    gt = dataset([[0, 0, 10, 10], [0, 0, 10, 9]], ignored=[0, 1])
    ap, curves = evaluate_detections(detections((0, 0, 0.9, [0, 0, 10, 9])), gt, [0.5])
    assert ap["area"][0, 0] == 0 and len(curves[0].recall) == 0


def test_exactly_the_threshold_is_right():
    # The devkit has IoU >= threshold, Detectron2 >. 100 x 50 in 100 x 100 is exactly one half.
    gt = dataset([[0, 0, 100, 100]])
    half = detections((0, 0, 0.9, [0, 0, 100, 50]))
    assert evaluate_detections(half, gt, [0.5])[0]["area"][0, 0] == 1


def test_geometry_is_the_devkits():
    # Pixels 3..6 and 5..8 (one-based, inclusive) in a row: 2 common pixels of 6. Detectron2 reads
    # them as 2..6 and 4..8.
    iou, _ = best_objects(
        np.array([[2.0, 0, 6, 1]]), np.zeros(1, int), np.array([[4.0, 0, 8, 1]]), np.zeros(1, int)
    )
    assert iou[0] == pytest.approx(2 / 6)


def test_precision_at_a_recall_that_is_a_level():
    # Of 100 objects, the k-th is found with precision 1 - k / 200. At k = 35, 41, 47, ... the
    # levels of np.linspace lie beyond k / 100.
    hits = np.arange(1, 101)
    curve = PrecisionRecall(hits / 100, 1 - hits / 200)
    np.testing.assert_array_equal(precision_at(curve, RECALL_LEVELS)[1:], curve.precision)


def test_class_without_objects_has_no_ap():
    # Class 1 has only a difficult object, class 2 none; class 0 is there and never detected.
    gt = dataset([[0, 0, 9, 9], [0, 0, 9, 9]], classes=[0, 1], ignored=[0, 1], num_classes=3)
    found = detections((0, 1, 0.9, [0, 0, 9, 9]), (0, 2, 0.9, [0, 0, 9, 9]))
    for metric in ("11point", "area"):
        ap = evaluate_detections(found, gt, [0.5, 0.7])[0][metric]
        np.testing.assert_array_equal(ap, [[0, 0], [np.nan] * 2, [np.nan] * 2])


def test_equal_scores_count_in_the_order_of_the_images():
    gt = dataset([[0, 0, 9, 9]], images=[1], num_images=2)
    rows = [(1, 0, 0.5, [0, 0, 9, 9]), (0, 0, 0.5, [0, 0, 9, 9])]
    for order in (rows, rows[::-1]):
        ap, _ = evaluate_detections(detections(*order), gt, [0.5])
        assert ap["area"][0, 0] == pytest.approx(1 / 2)


def test_scores_are_not_rounded():
    # 0.50004 and 0.50001 are one score with three decimals. The wrong one is listed first.
    gt = dataset([[0, 0, 9, 9]])
    found = detections((0, 0, 0.50001, [50, 50, 60, 60]), (0, 0, 0.50004, [0, 0, 9, 9]))
    assert evaluate_detections(found, gt, [0.5])[0]["area"][0, 0] == 1
