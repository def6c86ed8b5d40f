"""Difficult objects: ignored by the RPN, and unseen by any ROI head."""

import copy
import pickle

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from small_detectors import OTHER_HEADS
from small_models import TWO_OBJECTS, batch, instances, small_cfg, with_masks

from nrpn_d2.modeling.ignored import GroundTruth, ignored_boxes, set_ignored_aside
from nrpn_d2.modeling.labels import withhold_ignored


def boxes_of(gt):
    return gt.gt_boxes.tensor.tolist(), ignored_boxes(gt).tensor.tolist()


def test_objects_of_class_minus_1_become_boxes_to_ignore():
    boxes = [[0.0, 0, 9, 9], [1, 1, 5, 5], [2, 2, 6, 6]]
    plain = instances(boxes, [4, -1, 7])
    gt = set_ignored_aside(plain)
    assert boxes_of(gt) == ([boxes[0], boxes[2]], [boxes[1]])
    assert gt.gt_classes.tolist() == [4, 7] and gt.get_fields().keys() == {"gt_boxes", "gt_classes"}
    assert boxes_of(plain) == (boxes, [])  # as it was
    for same in (gt.to("cpu"), pickle.loads(pickle.dumps(gt)), copy.deepcopy(gt)):
        assert isinstance(same, GroundTruth) and boxes_of(same) == boxes_of(gt)
    assert boxes_of(gt[gt.gt_classes == 7]) == ([boxes[2]], [boxes[1]])
    gt.gt_classes = torch.tensor([4, -1])
    assert boxes_of(set_ignored_aside(gt)) == ([boxes[0]], [boxes[1], boxes[2]])


def test_proposals_on_a_box_to_ignore_and_on_no_object_are_withheld():
    gt = set_ignored_aside(instances([[0, 0, 20, 20], [40, 0, 60, 20]], [0, -1]))
    kept = [
        [0, 0, 20, 20],  # the object
        [70, 0, 90, 20],  # on neither
        [20, 0, 50, 20],  # of the difficult object: IoU 0.25, a third of the own area
        [0, 0, 60, 20],  # on both, with an IoU of a third
    ]
    dropped = [
        [40, 0, 60, 20],  # the difficult object
        [32, 0, 52, 20],  # IoU 0.43
        [50, 5, 60, 15],  # inside, IoU 0.25
    ]
    proposals = Instances((96, 128))
    proposals.proposal_boxes = Boxes(torch.tensor(dropped + kept, dtype=torch.float32))
    (result,) = withhold_ignored([proposals], [gt], 0.3, 0.5)
    assert result.proposal_boxes.tensor.tolist() == kept
    (result,) = withhold_ignored([proposals], [instances([[0, 0, 9, 9]])], 0.3, 0.5)
    assert len(result) == len(proposals)


@pytest.mark.parametrize("generator", ["HardNegativeRPN", "RPN"])
@pytest.mark.parametrize("heads", [None, "cascade", "mask"])
@pytest.mark.parametrize("classes", [[1, -1], [-1, -1]])
def test_any_roi_head_trains_with_difficult_objects(generator, heads, classes):
    """Cascade R-CNN's later stages match their boxes to the ground truth anew."""
    overrides = {**OTHER_HEADS.get(heads, {}), "MODEL__PROPOSAL_GENERATOR__NAME": generator}
    model = build_model(small_cfg(MODEL__NRPN__FP_SELECT="topk", **overrides))
    if heads == "cascade":  # the second stage gets boxes that fill the image
        bias = model.roi_heads.box_predictor[0].bbox_pred.bias
        bias.data.copy_(torch.tensor([0.0, 0.0, 20.0, 20.0]))
    gts = [instances(TWO_OBJECTS, classes), instances([[0, 0, 128, 96]], [-1])]
    if heads == "mask":
        gts = [with_masks(gt) for gt in gts]
    mapped = [set_ignored_aside(gt) for gt in gts]
    # with HardNegativeRPN also a mapper will do that leaves them in the ground truth
    for gts_ in [mapped, gts] if generator == "HardNegativeRPN" else [mapped]:
        for inputs in (batch(*gts_), batch(gts_[1])):
            with EventStorage(0):
                losses = model(inputs)
            sum(losses.values()).backward()
            assert all(loss.isfinite() for loss in losses.values())


def test_no_head_learns_a_difficult_object_as_background():
    model = build_model(small_cfg(MODEL__RPN__POST_NMS_TOPK_TRAIN=2000))  # all there are
    seen = []
    model.roi_heads.register_forward_pre_hook(lambda _, args: seen.append(args[2:]))
    gt = instances([[0, 0, 128, 96], [10, 12, 40, 50]], [-1, 0])
    with EventStorage(0):
        model(batch(gt))
    (proposals,), (targets,) = seen[0]
    assert targets.gt_classes.tolist() == [0]
    # the difficult object covers the whole image: what is left lies on the other one
    ious = pairwise_iou(targets.gt_boxes, proposals.proposal_boxes)[0]
    assert len(ious) > 0 and (ious >= 0.3).all()
