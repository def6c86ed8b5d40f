"""Objects at the network's scale, their best IoU with anchors, and anchors that fit them."""

import numpy as np
import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, BoxMode, pairwise_iou
from registered_dataset import random_boxes
from small_models import small_cfg

from nrpn_d2.data.anchors.clusters import fit_grid, fit_shapes, grid_shapes, merge_shapes
from nrpn_d2.data.anchors.fitting import fit_anchors, knee
from nrpn_d2.data.anchors.reach import AnchorLevel, anchor_levels, best_ious, config_levels, reached
from nrpn_d2.data.anchors.seen import SeenObjects, resized, seen_objects


def square(side, x=0.0, y=0.0):
    return [x, y, x + side, y + side]


def objects(boxes, size=(400, 300)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return SeenObjects(boxes, np.tile(np.float32(size), (len(boxes), 1)))


def level(stride, *sides):
    half = np.array(sides, np.float32)[:, None] / 2
    return AnchorLevel(stride, np.concatenate([-half, -half, half, half], axis=1))


@pytest.mark.parametrize("short, longest", [(160, 320), (800, 1333), (0, 320)])
def test_sizes_are_those_of_detectron2(short, longest):
    sizes = [(640, 480), (100, 700), (333, 333), (31, 30)]
    ours = resized(np.array(sizes, float), np.full(4, short), longest)
    for (width, height), size in zip(sizes, ours.tolist()):
        image = np.zeros((height, width, 3), np.uint8)
        transform = ResizeShortestEdge(short, longest).get_transform(image)
        assert transform.apply_image(image).shape[1::-1] == tuple(size)


def test_objects_are_seen_at_training_size_without_ignored_ones():
    cfg = small_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (50,), 1000
    annotations = [
        {"bbox": [10, 20, 30, 40], "bbox_mode": BoxMode.XYWH_ABS},
        {"bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYXY_ABS, "difficult": 1},
        {"bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYXY_ABS, "iscrowd": 1},
    ]
    record = {"width": 200, "height": 100, "annotations": annotations}  # halved
    seen = seen_objects([record, {"width": 9, "height": 9}], cfg)
    assert seen.boxes.tolist() == [[5, 10, 20, 30]]
    assert seen.image_sizes.tolist() == [[100, 50]]


def test_several_short_sides_are_all_drawn_and_always_the_same():
    cfg = small_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (50, 100), 1000
    box = {"bbox": square(10), "bbox_mode": BoxMode.XYXY_ABS}
    records = [{"width": 100, "height": 100, "annotations": [box]}] * 50
    seen = seen_objects(records, cfg)
    assert set(seen.shapes[:, 0].tolist()) == {5, 10}
    assert (seen_objects(records, cfg).boxes == seen.boxes).all()


def test_an_anchor_between_two_places():
    """Anchors of 8 stand at 4, 12, ...: an object of 8 with centre 8 lies half on two of them."""
    stride_8 = [level(8, 8)]
    best = best_ious(objects([square(8, 0, 0), square(8, 4, 0), square(8, 4, 4)]), stride_8)
    # overlaps 8 x 8; 4 x 8 of 96; 4 x 4 of 112
    assert best[:, 0] == pytest.approx([1, 1 / 3, 1 / 7])
    assert reached(best[:, 0]) == pytest.approx((1 / 3, 1 / 3))


def test_best_ious_are_those_with_all_anchors():
    generator = DefaultAnchorGenerator(
        sizes=[[20, 45], [90]], aspect_ratios=[[0.5, 1, 2]], strides=[8, 32], offset=0.5
    )
    size = (400, 300)
    boxes = random_boxes(np.random.default_rng(0), 300, *size)
    maps = [torch.zeros(1, 1, -(-size[1] // s), -(-size[0] // s)) for s in (8, 32)]
    ours = best_ious(objects(boxes, size), anchor_levels(generator))
    for number, anchors in enumerate(generator(maps)):
        theirs = pairwise_iou(Boxes(torch.from_numpy(boxes)), anchors).max(dim=1).values
        np.testing.assert_allclose(ours[:, number], theirs, atol=1e-5)


def test_levels_of_a_config():
    cfg = small_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16, 32]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    (only,) = config_levels(cfg)
    assert only.shapes.tolist() == [[16, 16], [32, 32]]


def test_clusters_of_two_shapes_are_these():
    shapes = merge_shapes(np.array([[10, 20]] * 9 + [[40, 30]]))
    assert fit_shapes(shapes, 2, np.ones((2, 2))) == pytest.approx(np.array([[10, 20], [40, 30]]))
    (one,) = fit_shapes(shapes, 1, np.ones((1, 2)))
    assert one == pytest.approx([10, 20])  # 0.9: better than between the two


def test_a_grid_is_found_again():
    sizes, ratios = np.array([10.0, 40, 160]), np.array([0.5, 1.0, 2.0])
    shapes = merge_shapes(grid_shapes(sizes, ratios).repeat(3, axis=0))
    found = fit_grid(shapes, 3, 3)
    assert found[0] == pytest.approx(sizes) and found[1] == pytest.approx(ratios)


def test_grid_shapes_are_in_detectron2s_order():
    sizes, ratios = [16, 32], [0.5, 1, 2]
    generator = DefaultAnchorGenerator(sizes=[sizes], aspect_ratios=[ratios], strides=[8])
    (theirs,) = anchor_levels(generator)
    np.testing.assert_allclose(grid_shapes(np.array(sizes), np.array(ratios)), theirs.shapes)


def test_merged_shapes_keep_their_number_and_nearly_their_sides():
    sides = np.exp(np.random.default_rng(0).normal(3, 1, (20_000, 2)))
    shapes = merge_shapes(sides)
    assert shapes.weights.sum() == 20_000 and len(shapes.sides) < 15_000
    assert shapes.weights @ shapes.sides == pytest.approx(sides.sum(axis=0))


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    return objects(random_boxes(rng, 500, 640, 480), (640, 480))


def test_fitted_anchors_go_to_levels_by_size(many):
    levels = [level(8, 1), level(32, 1)]
    four, six = fit_anchors(many, levels, range(3, 8))
    assert (four.k, six.k) == (4, 6)
    for fit in (four, six):
        anchors = [len(level.anchors) for level in fit.levels]
        assert anchors == [fit.k // 2] * 2
        assert max(fit.sizes[0]) <= min(fit.sizes[1])
        assert [len(sizes) * len(fit.ratios) for sizes in fit.sizes] == anchors
        assert fit.grid.mean_iou <= fit.free.mean_iou
    assert six.free.mean_iou > four.free.mean_iou
    with pytest.raises(ValueError, match="--k needs a multiple of 2"):
        fit_anchors(many, levels, [3])


def test_too_few_objects():
    with pytest.raises(ValueError, match="2 objects .* 3 anchors"):
        fit_anchors(objects([square(8), square(8), square(30)]), [level(8, 1)], [3])
    with pytest.raises(ValueError, match="0 objects"):
        fit_anchors(objects([[3, 3, 3, 3]]), [level(8, 1)], [1])


def test_knee():
    # Above the line from (3, 0.5) to (7, 0.9): 0, 0.15, 0.1, 0.05, 0
    assert knee([3, 4, 5, 6, 7], [0.5, 0.75, 0.8, 0.85, 0.9]) == 4
    assert knee([3, 9], [0.5, 0.9]) == 9
