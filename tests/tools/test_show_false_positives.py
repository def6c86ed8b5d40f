"""The tool that draws unlabelled proposals: what it selects (the drawing is visualize's)."""

import math

import torch
from detectron2.structures import Boxes, Instances
from show_false_positives import confident_background


def test_confident_background():
    proposals = Instances((50, 50))
    # IoU with the object: 1; 4 x 10 shared of 16 x 10, 0.25; 0; 0
    boxes = [[0, 0, 10, 10], [6, 0, 16, 10], [30, 30, 40, 40], [20, 20, 30, 30]]
    proposals.proposal_boxes = Boxes(torch.tensor(boxes).float())
    sure, unsure = math.log(0.71 / 0.29), math.log(0.69 / 0.31)
    proposals.objectness_logits = torch.tensor([sure, sure, sure, unsure])
    objects = torch.tensor([[0.0, 0, 10, 10]])
    found = confident_background(proposals, objects, score=0.7, iou=0.3)
    assert found.tolist() == boxes[1:3]
    found = confident_background(proposals, objects, score=0.7, iou=0.2)
    assert found.tolist() == boxes[2:3]
    none = confident_background(proposals, torch.zeros(0, 4), score=0.7, iou=0.3)
    assert none.tolist() == boxes[:3]
