"""A view of an image is what a training step does with it."""

import random

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import batch, instances, small_cfg

from nrpn_d2.evaluation import pictures
from nrpn_d2.evaluation.views import choose_images, objectness_targets, view_image
from nrpn_d2.modeling.ignored import set_ignored_aside
from nrpn_d2.modeling.losses import OBJECTNESS_LOSS_REGISTRY
from nrpn_d2.utils.seeding import undisturbed

BOXES = [[10, 12, 40, 50], [60, 20, 120, 80], [5, 60, 30, 90]]  # the last one is difficult


def small_inputs():
    (inputs,) = batch(set_ignored_aside(instances(BOXES, [0, 1, -1])))
    return {**inputs, "file_name": "a.png", "width": 256, "height": 192}  # twice the input's size


@pytest.mark.parametrize(
    "backbone, by", [("vgg", "anchor"), ("vgg", "proposal"), ("fpn", "proposal")]
)
def test_a_view_is_what_a_step_sees(backbone, by):
    options = {"FP_BY": by, "FP_SELECT": "topk", "NMS_THRESH": 0.5}
    options = {f"MODEL__NRPN__{key}": value for key, value in options.items()}
    model = build_model(small_cfg(backbone, "ProposalNetwork", **options)).train()
    inputs = small_inputs()
    with EventStorage(0) as storage:
        if backbone == "fpn":  # its batch normalisation, frozen, and no dropout: equal modes
            model.eval()
            model.training = model.proposal_generator.training = True
        model([inputs])
        step = {name: value for name, (value, _) in storage.latest().items()}
    view = view_image(model, inputs)
    assert view.is_fp.sum() == step["nrpn/false_positives"] == 16
    assert view.hard.sum() == step["nrpn/hard_negatives"] > 0
    assert view.scores[view.hard].mean() == pytest.approx(step["nrpn/rpn_score_on_hard"], rel=1e-4)
    assert (view.hard & view.is_fp).sum() / view.hard.sum() == pytest.approx(step["nrpn/believed"])
    assert np.array_equal(view.objects, 2 * np.array(BOXES[:2]))
    assert np.array_equal(view.ignored, 2 * np.array(BOXES[2:]))
    assert view.proposals.max() > 128 and (view.proposals <= [256, 192] * 2).all()
    assert (np.diff(view.proposal_scores) <= 0).all() and (np.diff(view.nrpn_scores) <= 0).all()
    assert len(view.targets) == (view.labels == 1).sum() and (view.targets == 1).all()
    assert len(np.unique(view.levels)) == (5 if backbone == "fpn" else 1)
    without = view_image(model, inputs, with_nrpn=False)  # in the warm-up
    assert without.nrpn_proposals is None and not without.hard.any()


def test_looking_disturbs_nothing():
    model = build_model(small_cfg()).train()
    model.backbone.eval()
    modes = [module.training for module in model.modules()]

    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = draw()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    with pytest.raises(KeyError), undisturbed(model):
        assert not any(module.training for module in model.modules())
        assert draw() != expected and not torch.is_grad_enabled()
        raise KeyError
    assert draw() == expected
    assert [module.training for module in model.modules()] == modes


class Smooth:
    """A loss of one's own."""

    def __call__(self, logits, labels, ious):
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        return bce(logits, labels * 0.9 + 0.05, reduction="none")


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("BCE", {}, [1, 1, 1]),
        ("Overlap", {"OVERLAP_MODE": "literal"}, [1, 1, 1]),
        ("Overlap", {"OVERLAP_MODE": "clamped"}, [0.2, 0.55, 0.9]),
        ("Overlap", {"OVERLAP_MODE": "soft", "MIN_IOU": 0.3}, [0.3, 0.55, 0.9]),
        ("IoUTarget", {}, [0.2, 0.55, 0.9]),
        ("IoUTarget", {"STRETCH": True}, [0, 0.25 / 0.7, 0.6 / 0.7]),
        ("QualityFocal", {}, [0.2, 0.55, 0.9]),
        (Smooth(), {}, [0.95, 0.95, 0.95]),
    ],
)
def test_targets_of_any_loss(name, options, expected):
    loss = name
    if isinstance(name, str):
        options = {f"MODEL__RPN__OBJECTNESS_LOSS__{k}": v for k, v in options.items()}
        loss = OBJECTNESS_LOSS_REGISTRY.get(name)(small_cfg(**options))
    targets = objectness_targets(loss, torch.tensor([0.2, 0.55, 0.9]))
    assert targets.numpy() == pytest.approx(np.array(expected), abs=2e-3)
    assert len(objectness_targets(loss, torch.empty(0))) == 0


def test_choose_images_with_objects_evenly_spread():
    records = [{"annotations": [{}]}, {}, {"annotations": [{"iscrowd": 1}]}]
    records += [{"annotations": [{"difficult": 0}]}] * 7
    assert choose_images(records, 3) == [0, 5, 9] and choose_images(records, 1) == [0]
    assert choose_images(records, 99) == [0, 3, 4, 5, 6, 7, 8, 9]
    assert choose_images(records[1:3], 3) == []


def test_confident_background_by_hand():
    """A proposal on a difficult object is none; calibration leaves it out, too."""
    view = view_image(build_model(small_cfg(meta_architecture="ProposalNetwork")), small_inputs())
    boxes = np.array([[20, 24, 80, 100], [200, 100, 250, 190], [10, 120, 60, 180], [0, 0, 9, 9]])
    found = pictures.View(
        **{
            **vars(view),
            "proposals": boxes,
            "proposal_scores": np.array([0.95, 0.8, 0.75, 0.6], np.float32),
            "proposal_ious": np.array([1.0, 0, 0, 0]),
            "kinds": np.array([0, 3, 4, 3]),  # hit, background, ignored
        }
    )
    assert pictures.confident_background(found, 0.7, 0.3).tolist() == [False, True, False, False]
    bins = pictures.calibration_of([found])
    assert bins["share:9"] + bins["share:8"] + bins["share:6"] == pytest.approx(100)
    assert bins["ECE"] == pytest.approx((0.05 + 0.8 + 0.6) / 3, abs=1e-6)
