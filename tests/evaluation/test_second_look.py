"""The second judge of an audit: what it sees, and that it judges nothing that it learned from."""

import numpy as np
import pytest
import torch
from small_detectors import confident, detector_cfg, noise

from nrpn_d2.evaluation import second_look
from nrpn_d2.evaluation.second_look import can_look, judge, look_again


@pytest.fixture(scope="module")
def model():
    return confident(detector_cfg("vgg"))


def look(model, image, boxes, views, monkeypatch):
    """Of an image that was resized to twice its size."""
    monkeypatch.setattr(second_look, "_VIEWS", views)
    height, width = image.shape[1:]
    inputs = {"image": image, "height": height // 2, "width": width // 2}
    classes = torch.arange(len(boxes)) % 3
    return look_again(model, inputs, torch.tensor(boxes).reshape(-1, 4), classes)


BOXES = [[4.0, 4.0, 30.0, 40.0], [20.0, 10.0, 60.0, 44.0]]
MIRRORED = [[34.0, 4.0, 60.0, 40.0], [4.0, 10.0, 44.0, 44.0]]  # 64 pixels wide


def test_a_mirrored_view_is_that_of_the_mirrored_image(model, monkeypatch):
    (image,) = noise((96, 128))
    scores, features = look(model, image, BOXES, ((1.0, True),), monkeypatch)
    plain = look(model, image.flip(2), MIRRORED, ((1.0, False),), monkeypatch)
    assert torch.allclose(scores, plain[0], atol=1e-5) and torch.equal(features, plain[1])
    assert not torch.equal(features, look(model, image, BOXES, ((1.0, False),), monkeypatch)[1])


def test_scores_are_means_over_the_views(model, monkeypatch):
    (image,) = noise((96, 128))
    views = (1.0, False), (1.5, True)
    both, features = look(model, image, BOXES, views, monkeypatch)
    alone = [look(model, image, BOXES, (view,), monkeypatch)[0] for view in views]
    assert features.shape[:2] == (2, 2)
    assert torch.allclose(both, (alone[0] + alone[1]) / 2)
    nothing, features = look(model, image, [], views, monkeypatch)
    assert len(nothing) == len(features) == 0


def test_scores_are_the_predictors_and_features_finite(model, monkeypatch):
    heads, (image,) = model.roi_heads, noise((96, 128))
    monkeypatch.setattr(heads.box_predictor, "predict_probs", lambda x, _: [x[0].sigmoid()])
    forward = heads.box_head.forward
    monkeypatch.setattr(heads.box_head, "forward", lambda x: 1e6 * forward(x).sign())
    scores, features = look(model, image, BOXES, ((1.0, False),), monkeypatch)
    assert np.isfinite(features.numpy()).all() and features.max() > 5e4
    logits, _ = heads.box_predictor(1e6 * features[:, 0].float().sign())
    assert torch.allclose(scores, logits.sigmoid()[[0, 1], [0, 1]])


def test_which_models_can_look(model):
    assert can_look(model)
    for other in (
        detector_cfg("cascade"),
        detector_cfg("vgg", MODEL__META_ARCHITECTURE="ProposalNetwork"),
    ):
        assert not can_look(confident(other))


def detections(count=400, spread=1.0):
    """Features in which objects differ from the rest; a tenth of the objects has no label."""
    rng = np.random.default_rng(0)
    real = rng.random(count) < 0.5
    features = rng.normal(size=(count, 1, 8)) + spread * real[:, None, None]
    labelled = real & (rng.random(count) < 0.9)
    return features.astype(np.float16), real, labelled.astype(int), rng.integers(0, 100, count)


def ranked(scores, real):
    """The probability that an object stands before something else."""
    return (scores[real][:, None] > scores[~real]).mean()


def test_unlabelled_objects_stand_before_the_rest():
    features, real, is_object, images = detections()
    judged = judge(features, is_object, images)
    unlabelled = is_object == 0
    assert ranked(judged[unlabelled], real[unlabelled]) > 0.9
    assert np.array_equal(judged, judge(features, is_object, images))


def test_nothing_is_judged_by_what_learned_from_it():
    features, _, is_object, images = detections(spread=0.0)
    assert 0.35 < ranked(judge(features, is_object, images), is_object == 1) < 0.65


@pytest.mark.parametrize("count, num_images", [(60, 100), (400, 1), (0, 1)])
def test_too_few_to_learn_from(count, num_images):
    features, _, is_object, images = detections(count)
    assert judge(features, is_object, images % num_images) is None
