"""Proposals at several NMS thresholds are those of models with these thresholds."""

import pytest
import torch
from detectron2.modeling import build_model
from registered_dataset import registered
from small_models import TWO_OBJECTS, batch, instances, small_cfg

from nrpn_d2.evaluation import ProposalErrorEvaluator, ProposalRecallEvaluator
from nrpn_d2.evaluation.nms_sweep import evaluate_along_nms, propose


@pytest.fixture
def model():
    torch.manual_seed(0)
    cfg = small_cfg("fpn", "ProposalNetwork", MODEL__RPN__NEGATIVE_SAMPLER__NAME="Random")
    return build_model(cfg).eval()


def images():
    inputs = batch(instances(TWO_OBJECTS), instances([]), seed=3)
    for n, image in enumerate(inputs):
        image.update(image_id=str(n), height=300, width=400)
        del image["instances"]
    return inputs


def test_proposals_are_the_models(model):
    thresholds = (0.3, 0.7, 0.9)
    outputs = propose(model, images(), thresholds, 50)
    counts = set()
    for threshold in thresholds:
        model.proposal_generator.nms_thresh = threshold
        with torch.no_grad():
            expected = model(images())
        for a, b in zip(outputs[threshold], expected):
            a, b = a["proposals"], b["proposals"]
            assert a.image_size == b.image_size == (300, 400)
            assert torch.equal(a.proposal_boxes.tensor, b.proposal_boxes.tensor)
            assert torch.equal(a.objectness_logits, b.objectness_logits)
            counts.add(a.proposal_boxes.tensor.sum().item())
    assert len(counts) > 2  # the threshold changes something


def test_metrics_are_those_of_the_evaluators(model):
    objects = [[((40, 30, 160, 150), 0), ((250, 60, 390, 250), 1)], []]
    with registered(objects, ["cat", "dog"]) as dataset:
        loader = [[image] for image in images()]
        results = evaluate_along_nms(
            model,
            loader,
            dataset,
            nms_thresholds=(0.5, 0.7),
            budgets=(5, 50),
            iou_thresholds=(0.5, 0.7),
            left_out=["dog"],
        )
        assert set(results) == {0.5, 0.7}
        evaluators = [
            ProposalRecallEvaluator(dataset, budgets=(5, 50), iou_thresholds=(0.5, 0.7)),
            ProposalErrorEvaluator(dataset, budgets=(5, 50)),
        ]
        for inputs in loader:
            for evaluator in evaluators:
                evaluator.process(inputs, model(inputs))
        for evaluator in evaluators:
            for metrics in evaluator.evaluate().values():
                for name, value in metrics.items():
                    if not name.endswith(("-cat", "-dog")):
                        assert results[0.7][name] == pytest.approx(value, nan_ok=True), name
        assert "AR@5-cat" not in results[0.7] and {"AR@5-seen", "R50-unseen"} < set(results[0.7])
        assert "ECE@50" in results[0.7]
