"""Labels against the rules of Faster R-CNN, and the rule for difficult objects, in naive loops."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, ImageList, pairwise_ioa, pairwise_iou
from detectron2.utils.events import EventStorage
from small_models import instances, small_cfg

from nrpn_d2.modeling.ignored import set_ignored_aside
from nrpn_d2.modeling.labels import iou_matrix, label_anchors
from nrpn_d2.modeling.samplers import Sample

MATCHER = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
ANCHORS = DefaultAnchorGenerator(sizes=[[16, 32, 64]], aspect_ratios=[[0.5, 1, 2]], strides=[8])(
    [torch.zeros(1, 16, 12, 16)]
)[0]


def naive_labels(gt, anchors, ignore_ioa=0.5):
    """Labels and IoUs by Faster R-CNN's rules and the rule for difficult objects."""
    real = gt.gt_boxes[gt.gt_classes >= 0]
    ignored = gt.gt_boxes[gt.gt_classes < 0]
    iou = pairwise_iou(real, anchors)
    ignored_iou, ignored_ioa = pairwise_iou(ignored, anchors), pairwise_ioa(ignored, anchors)
    labels, best = [], []
    for a in range(len(anchors)):
        ious = iou[:, a].tolist()
        top = max(ious, default=0.0)
        is_best = any(value == row.max().item() for value, row in zip(ious, iou))
        label = 1 if top >= 0.7 or is_best else (0 if top < 0.3 else -1)
        over = (ignored_iou[:, a] >= 0.3).any() or (ignored_ioa[:, a] >= ignore_ioa).any()
        labels.append(-1 if label == 0 and over else label)
        best.append(top)
    return labels, best


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, -1, 2], [-1, -1, 0], [-1, -1, -1]])
def test_labels(classes):
    boxes = [[4, 4, 40, 40], [50, 10, 120, 90], [90, 60, 110, 84]]
    gts = [instances(boxes, classes), instances([])]
    split = [set_ignored_aside(gt) for gt in gts]
    labels, ious, gt_boxes = label_anchors(ANCHORS, split, MATCHER, ignore_ioa=0.5)
    for i, gt in enumerate(gts):
        expected, best = naive_labels(gt, ANCHORS)
        assert labels[i].tolist() == expected
        assert ious[i].tolist() == pytest.approx(best, abs=1e-6)
    if classes == [0, -1, 2]:
        assert {(x, y) for x, y in zip(labels[0].tolist(), labels[1].tolist())} == {
            (1, 0),
            (0, 0),
            (-1, 0),
        }
    real = gts[0].gt_boxes.tensor[gts[0].gt_classes >= 0]
    iou = pairwise_iou(Boxes(real), ANCHORS)
    for a in (labels[0] == 1).nonzero().flatten().tolist():
        assert torch.equal(gt_boxes[0][a], real[iou[:, a].argmax()])


def test_ignore_ioa():
    gt = instances([[0, 0, 64, 64]], [-1])
    counts = []
    for ioa in (0.3, 1.0):
        labels, _, _ = label_anchors(ANCHORS, [set_ignored_aside(gt)], MATCHER, ignore_ioa=ioa)
        assert labels[0].tolist() == naive_labels(gt, ANCHORS, ioa)[0]
        counts.append((labels == -1).sum().item())
    assert counts[0] > counts[1] > 0


def test_anchors_outside_the_image_can_be_ignored_as_in_detectron2():
    gt = instances([[10, 12, 40, 50], [60, 20, 120, 80]])
    labels, _, _ = label_anchors(ANCHORS, [gt], MATCHER, ignore_ioa=0.5, boundary_thresh=0)
    inside = ANCHORS.inside_box((96, 128), 0)
    assert (labels[0][~inside] == -1).all() and (labels[0][inside] >= 0).any()
    labels, _, _ = label_anchors(ANCHORS, [gt], MATCHER, ignore_ioa=0.5)
    assert (labels[0][~inside] == 0).any()


def test_the_hub_passes_its_settings_on():
    rpn = build_model(
        small_cfg(MODEL__NRPN__IGNORE_IOA=0.3, MODEL__RPN__BOUNDARY_THRESH=0)
    ).proposal_generator
    gt = set_ignored_aside(instances([[0, 0, 64, 64]], [-1]))
    anchors = rpn.anchor_generator([torch.zeros(1, 16, 12, 16)])
    expected, _, _ = label_anchors(anchors[0], [gt], MATCHER, ignore_ioa=0.3, boundary_thresh=0)
    seen = []
    rpn.negative_sampler = lambda labels, *_: seen.append(labels) or Sample(labels, labels > 5)
    features = {"conv4": torch.zeros(1, 16, 12, 16)}
    with EventStorage(0):
        rpn(ImageList(torch.zeros(1, 3, 96, 128), [(96, 128)]), features, [gt])
    assert torch.equal(seen[0], expected)


def test_iou_matrix_is_detectron2s_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand((500, 4), generator=generator) * 100
    anchors = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1)
    points = torch.tensor([[3.0, 4, 3, 4], [0, 0, 0, 0]])  # without area: 0 / 0 with themselves
    anchors, objects = Boxes(torch.cat([anchors, points])), Boxes(torch.cat([anchors[:9], points]))
    expected = pairwise_iou(objects, anchors)
    assert torch.equal(iou_matrix(objects, anchors), expected)
    assert expected[-1, -1] == 0 and 0 < (expected > 0.5).sum() < expected.numel()
    assert iou_matrix(objects[:0], anchors).shape == (0, 502)
