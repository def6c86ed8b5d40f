"""How often a training step of the RPN waits for a GPU, counted on the CPU."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage
from host_syncs import counted_syncs
from small_models import TWO_OBJECTS, instances, small_cfg

from nrpn_d2.modeling.ignored import set_ignored_aside


def learn(sampler, gts, **changes):
    """The number of waits in a training step on ``gts``, of the RPN with that sampler."""
    changes["MODEL__RPN__NEGATIVE_SAMPLER__NAME"] = sampler or "Random"
    if sampler is None:
        changes["MODEL__PROPOSAL_GENERATOR__NAME"] = "RPN"
    rpn = build_model(small_cfg(MODEL__NRPN__SHARE_FEATURES=True, **changes)).proposal_generator
    images = ImageList(torch.zeros(len(gts), 3, 96, 128), [gt.image_size for gt in gts])
    features = {"conv4": torch.randn(len(gts), 16, 12, 16)}
    anchors = rpn.anchor_generator([features["conv4"]])
    logits = [torch.randn(len(gts), len(a), requires_grad=True) for a in anchors]
    deltas = [torch.randn(len(gts), len(a), 4, requires_grad=True) for a in anchors]
    with EventStorage(), counted_syncs() as counts:
        if sampler is None:
            labels, boxes = rpn.label_and_sample_anchors(anchors, gts)
            losses = rpn.losses(anchors, logits, labels, deltas, boxes)
        else:
            losses = rpn.learn(images, features, anchors, logits, deltas, gts)
        sum(losses.values()).backward()
    return sum(counts.values())


@pytest.mark.parametrize("num_images", [1, 2, 5])
@pytest.mark.parametrize("classes", [[0, 1], [0, -1]])
def test_no_more_than_detectron2s(num_images, classes):
    gts = [set_ignored_aside(instances(TWO_OBJECTS, classes)) for _ in range(num_images)]
    detectron2 = learn(None, gts)
    for sampler in ("Random", "OHEM", "IoUBalanced", "NRPN"):
        assert learn(sampler, gts) <= detectron2
    iou = {"MODEL__RPN__OBJECTNESS_LOSS__NAME": "IoUTarget"}
    assert learn("Random", gts, **iou) <= detectron2
    best = {"MODEL__NRPN__FP_BY": "proposal", "MODEL__NRPN__FALSE_ALARMS": 8}
    assert learn("NRPN", gts, **iou, **best) <= detectron2
    focal = {"MODEL__RPN__OBJECTNESS_LOSS__NAME": "Focal"}
    assert learn("All", gts, **focal) <= detectron2


def test_sampling_does_not_wait():
    """Two images more cost the waits of Detectron2's matcher, and no other."""
    few, many = ([instances(TWO_OBJECTS)] * n for n in (2, 4))
    per_image = (learn("Random", many) - learn("Random", few)) / 2
    assert (learn("NRPN", many) - learn("NRPN", few)) / 2 == per_image == 3


def test_the_counter_counts():
    x = torch.arange(4.0)
    with counted_syncs() as counts:
        x[1].item(), bool(x[1] > 0), x.tolist(), x[x > 1], torch.nonzero(x), x[[0, 2]]
        x[x == 0] = 0.0  # a single value: no need to know where
        x[x > 1] = torch.ones(1).expand(2)
    assert counts == {
        "aten::_local_scalar_dense": 2,
        "tolist": 1,
        "aten::index": 1,
        "aten::nonzero": 1,
        "aten::index_put_": 1,
    }
