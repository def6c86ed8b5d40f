"""What the nRPN proposes, to look at."""

import torch
from detectron2.modeling import build_model
from detectron2.structures import pairwise_iou
from small_models import batch, instances, small_cfg


def test_propose_negatives():
    model = build_model(small_cfg(MODEL__NRPN__NMS_THRESH=0.5)).eval()
    inputs = batch(instances([]), instances([], size=(64, 128)))
    with torch.no_grad():
        images = model.preprocess_image(inputs)
        features = model.backbone(images.tensor)
        proposals = model.proposal_generator.propose_negatives(images, features)
        logits = model.proposal_generator.negative_rpn(images, features)
    assert [p.image_size for p in proposals] == [(96, 128), (64, 128)]
    for found, of_image in zip(proposals, logits):
        scores = found.objectness_logits
        assert torch.equal(scores, scores.sort(descending=True).values) and len(found) > 5
        assert torch.isin(scores, of_image).all() and scores.isfinite().all()
        boxes = found.proposal_boxes
        height, width = found.image_size
        assert boxes.tensor.min() >= 0
        assert boxes.tensor[:, 2].max() <= width and boxes.tensor[:, 3].max() <= height
        # suppression came before clipping: look at boxes that were not clipped
        x0, y0, x1, y1 = boxes.tensor.unbind(1)
        inner = boxes[(x0 > 0) & (y0 > 0) & (x1 < width) & (y1 < height)]
        iou = pairwise_iou(inner, inner)
        assert len(inner) > 1 and (iou - torch.eye(len(iou))).max() <= 0.5
