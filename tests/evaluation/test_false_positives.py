"""What is selected to be drawn as a false positive."""

import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from registered_dataset import registered

from nrpn_d2.evaluation.false_positives import find_false_positives
from nrpn_d2.evaluation.ground_truth import load_ground_truth

# IoU with the object: 1; 4 x 10 shared of 16 x 10, 0.25; 0; 0
BOXES = [[10, 10, 20, 20], [16, 10, 26, 20], [30, 30, 40, 40], [20, 20, 30, 30]]


def model(inputs):
    proposals = Instances((50, 50))
    proposals.proposal_boxes = Boxes(torch.tensor(BOXES).float())
    sure, unsure = math.log(0.71 / 0.29), math.log(0.69 / 0.31)
    proposals.objectness_logits = torch.tensor([sure, sure, sure, unsure])
    return [{"proposals": proposals}]


@pytest.mark.parametrize("mode", [BoxMode.XYXY_ABS, BoxMode.XYWH_ABS])
@pytest.mark.parametrize("iou, wrong", [(0.3, [1, 2]), (0.2, [2])])
def test_confident_proposals_off_the_objects(mode, iou, wrong):
    with registered([[(BOXES[0], 0)], []], ["cell"]) as name:
        for annotation in DatasetCatalog.get(name)[0]["annotations"]:
            annotation["bbox"] = BoxMode.convert(annotation["bbox"], BoxMode.XYXY_ABS, mode)
            annotation["bbox_mode"] = mode
        batches = [[{"image_id": str(n), "file_name": f"{n}.jpg"}] for n in range(2)]
        truth = load_ground_truth(name)
        images = find_false_positives(model, batches, truth, score=0.7, iou=iou)
    (file_name, boxes, scores, objects), (_, empty_boxes, _, no_objects) = images
    assert file_name == "0.jpg"
    np.testing.assert_array_equal(boxes, np.array(BOXES)[wrong])
    np.testing.assert_allclose(scores, 0.71, rtol=1e-6)
    np.testing.assert_array_equal(objects, BOXES[:1])
    np.testing.assert_array_equal(empty_boxes, BOXES[:3])
    assert no_objects.shape == (0, 4)
