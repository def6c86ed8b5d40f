"""An independent implementation: pycocotools' AR on the same boxes."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from registered_dataset import near_boxes, random_boxes

from nrpn_d2.evaluation.recall import (
    AR_THRESHOLDS,
    SIZE_RANGES,
    Pairs,
    close_pairs,
    covered_overlaps,
    in_size_ranges,
    recall,
    side_by_side,
)
from nrpn_d2.utils.boxes import box_area, box_iou

BUDGETS = [3, 10, 40]


def coco_recall(scenes):
    """Recall (B, Z, T) by COCOeval, class-agnostic."""

    def xywh(boxes):
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()

    ids = range(1, len(scenes) + 1)
    objects = [
        {"image_id": i, "category_id": 1, "iscrowd": 0, "bbox": box, "area": box[2] * box[3]}
        for i, (boxes, _) in zip(ids, scenes)
        for box in xywh(boxes)
    ]
    found = [
        {"image_id": i, "category_id": 1, "bbox": box, "score": float(-k)}
        for i, (_, boxes) in zip(ids, scenes)
        for k, box in enumerate(xywh(boxes))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in ids],
            "categories": [{"id": 1}],
            "annotations": [{**obj, "id": n + 1} for n, obj in enumerate(objects)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        params = evaluation.params
        params.useCats, params.maxDets, params.iouThrs = 0, BUDGETS, AR_THRESHOLDS
        params.areaRng = [[low, min(high, 1e10)] for low, high in SIZE_RANGES.values()]
        params.areaRngLbl = list(SIZE_RANGES)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["recall"][:, 0].transpose(2, 1, 0)


def our_recall(scenes):
    objects, proposals, iou, first = [], [], [], 0
    for boxes, found in scenes:
        _, g, k = close_pairs([boxes], side_by_side([found]), 0.5)
        objects, proposals = objects + [first + g], proposals + [k]
        iou.append(box_iou(boxes[g], found[k]))
        first += len(boxes)
    pairs = Pairs(*map(np.concatenate, (objects, proposals, iou)))
    images = np.repeat(np.arange(len(scenes)), [len(boxes) for boxes, _ in scenes])
    sizes = in_size_ranges(np.concatenate([box_area(boxes) for boxes, _ in scenes]))
    return recall(covered_overlaps(pairs, images, BUDGETS, sizes), AR_THRESHOLDS)


def test_equal_where_no_proposal_has_two_objects():
    rng = np.random.default_rng(0)
    scenes = []
    for _ in range(40):
        # One object in each of up to six cells of a grid, so that proposals cannot be shared.
        cells = rng.permutation(6)[: rng.integers(1, 7)]
        corners = np.stack([cells % 3 * 130, cells // 3 * 150] * 2, axis=1)
        objects = corners + random_boxes(rng, len(cells), 130, 150)
        found = near_boxes(rng, objects, 40, spread=0.1)
        scenes.append((objects.astype(np.float64), found.astype(np.float64)))
    ours = our_recall(scenes)
    np.testing.assert_allclose(ours, coco_recall(scenes), atol=1e-12)
    assert 0.1 < ours[0, -1].mean() < ours[2, -1].mean() < 0.9  # three budgets, three numbers


def test_close_where_objects_overlap():
    # pycocotools gives each proposal, by score, to its best free object; the largest IoU first, as
    # here, finds a little more or less.
    rng = np.random.default_rng(1)
    scenes = []
    for _ in range(40):
        objects = near_boxes(rng, random_boxes(rng, 2), rng.integers(2, 10), spread=0.08)
        found = near_boxes(rng, objects, 40, spread=0.1)
        scenes.append((objects.astype(np.float64), found.astype(np.float64)))
    ours, theirs = our_recall(scenes), coco_recall(scenes)
    assert ours.mean(axis=-1) == pytest.approx(theirs.mean(axis=-1), abs=0.03)
