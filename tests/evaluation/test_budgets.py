"""BUDGETS are below and above the 33 proposals that the models are configured for."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from small_detectors import OTHER_HEADS
from small_models import small_cfg

from nrpn_d2.evaluation import with_budgets

BUDGETS = [5, 20, 60]


def small_config(**overrides):
    settings = {
        "MODEL__PROPOSAL_GENERATOR__NAME": "RPN",
        "MODEL__RPN__POST_NMS_TOPK_TEST": 33,
        "TEST__DETECTIONS_PER_IMAGE": 40,
    }
    return small_cfg("fpn", **{**settings, **overrides})


def random_model(cfg):
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    torch.manual_seed(0)  # whatever other heads have drawn
    if hasattr(model, "roi_heads"):  # spread the scores, so that the threshold and NMS have work
        predictor = model.roi_heads.box_predictor
        for head in predictor if isinstance(predictor, torch.nn.ModuleList) else [predictor]:
            torch.nn.init.normal_(head.cls_score.weight, std=1.0)
    return model


def random_images():
    torch.manual_seed(1)
    sizes = [(96, 128), (128, 96)]
    images = [torch.randint(0, 255, (3, *size)).float() for size in sizes]
    return [
        {"image": images[0], "height": 192, "width": 200},
        {"image": images[1]},  # stays in the size the model sees
    ]


@pytest.fixture(scope="module")
def model():
    return random_model(small_config())


def assert_equal_detections(found, expected):
    assert len(found) == len(expected) > 0
    assert found.image_size == expected.image_size
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert found.pred_classes.tolist() == expected.pred_classes.tolist()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["standard", "cascade", "mask"])
def test_budgets_equal_separate_runs(kind):
    heads = OTHER_HEADS.get(kind, {})
    images = random_images()
    model = random_model(small_config(**heads))
    outputs = with_budgets(model, BUDGETS)(images)
    # Without a budget in its name, everything is the model's own
    for output, expected in zip(outputs, model(images)):
        assert_equal_detections(output["instances"], expected["instances"])
        assert output["instances"].has("pred_masks") == (kind == "mask")
    assert [list(output["instances_at"]) for output in outputs] == [BUDGETS] * 2
    scores = []
    for budget in BUDGETS:
        separate = random_model(small_config(MODEL__RPN__POST_NMS_TOPK_TEST=budget, **heads))
        for output, expected in zip(outputs, separate(images)):
            assert_equal_detections(output["instances_at"][budget], expected["instances"])
        scores.append(output["instances_at"][budget].scores)
    assert len({len(s) for s in scores}) > 1  # the budgets differ
    again = with_budgets(model, [33])(images)[0]
    assert again["instances"] is again["instances_at"][33]


@torch.no_grad()
def test_proposals_are_those_of_a_proposal_network(model):
    images = random_images()
    network = random_model(small_config(MODEL__META_ARCHITECTURE="ProposalNetwork"))
    network.load_state_dict(model.state_dict(), strict=False)
    from_detector = with_budgets(model, BUDGETS)(images)
    from_network = with_budgets(network, BUDGETS)(images)
    for detector_output, network_output in zip(from_detector, from_network):
        assert set(network_output) == {"proposals", "most_proposals"}
        for kind, number in (("proposals", 33), ("most_proposals", 60)):
            ours, expected = detector_output[kind], network_output[kind]
            assert len(ours) == len(expected) == number
            torch.testing.assert_close(ours.proposal_boxes.tensor, expected.proposal_boxes.tensor)
            logits = ours.objectness_logits
            torch.testing.assert_close(logits, expected.objectness_logits)
            assert (logits[:-1] >= logits[1:]).all()
    for output, expected in zip(from_network, network(images)):
        ours, expected = output["proposals"].proposal_boxes, expected["proposals"].proposal_boxes
        torch.testing.assert_close(ours.tensor, expected.tensor)
    assert from_detector[0]["proposals"].image_size == (192, 200)
    assert from_detector[1]["proposals"].image_size == (128, 96)


@torch.no_grad()
def test_backbone_and_box_head_run_once(model):
    runs = []
    handles = [
        module.register_forward_hook(lambda module, *_: runs.append(type(module).__name__))
        for module in (model.backbone, model.proposal_generator, model.roi_heads.box_head)
    ]
    with_budgets(model, BUDGETS)(random_images())
    for handle in handles:
        handle.remove()
    assert runs == ["FPN", "RPN", "FastRCNNConvFCHead"]


@torch.no_grad()
def test_the_model_stays_as_it_was(model):
    before = model(random_images())
    budgeted = with_budgets(model, BUDGETS)
    assert not budgeted.training
    budgeted(random_images())
    assert model.proposal_generator.post_nms_topk[False] == 33
    assert not model.roi_heads.box_predictor._forward_hooks
    for output, expected in zip(model(random_images()), before):
        assert_equal_detections(output["instances"], expected["instances"])


@torch.no_grad()
def test_precomputed_proposals():
    model = random_model(small_config(MODEL__PROPOSAL_GENERATOR__NAME="PrecomputedProposals"))
    images = random_images()
    for image in images:
        height, width = image["image"].shape[1:]
        given = Instances((height, width))
        corners = torch.rand(80, 4) * torch.tensor([width / 2, height / 2] * 2)
        given.proposal_boxes = Boxes(corners + torch.tensor([0, 0, width / 2, height / 2]))
        given.objectness_logits = torch.linspace(5, -5, 80)
        image["proposals"] = given
    outputs = with_budgets(model, BUDGETS)(images)
    for budget in BUDGETS:
        first = [{**image, "proposals": image["proposals"][:budget]} for image in images]
        for output, expected in zip(outputs, model(first)):
            assert_equal_detections(output["instances_at"][budget], expected["instances"])
    for output, expected in zip(outputs, model(images)):  # all 80 are the model's own
        assert_equal_detections(output["instances"], expected["instances"])
        assert len(output["proposals"]) == len(output["most_proposals"]) == 80


def test_other_models_are_refused():
    with pytest.raises(TypeError, match="got Linear"):
        with_budgets(torch.nn.Linear(1, 1), BUDGETS)


@pytest.mark.parametrize("budgets", [[], [0, 50]])
def test_impossible_budgets_are_refused(model, budgets):
    with pytest.raises(ValueError, match="budgets must be positive"):
        with_budgets(model, budgets)
