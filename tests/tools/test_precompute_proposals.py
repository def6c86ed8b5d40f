import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.data.build import load_proposals_into_dataset
from detectron2.modeling import build_model
from PIL import Image
from precompute_proposals import precompute
from small_models import small_cfg

from nrpn_d2.evaluation import with_budgets
from nrpn_d2.evaluation.proposal_files import save_proposals


def records_in(folder):
    """Two images of different sizes; the test size of the models, 96, leaves the first as it is."""
    records = []
    for n, (width, height) in enumerate([(128, 96), (96, 48)]):
        pixels = np.random.default_rng(n).integers(0, 256, (height, width, 3), np.uint8)
        file_name = str(folder / f"{n}.png")
        Image.fromarray(pixels).save(file_name)
        records.append(dict(file_name=file_name, image_id=f"{n}", height=height, width=width))
    return records


def model_and_cfg(meta_architecture="GeneralizedRCNN"):
    cfg = small_cfg(meta_architecture=meta_architecture, INPUT__MIN_SIZE_TEST=96)
    torch.manual_seed(0)
    return build_model(cfg).eval(), cfg


@torch.no_grad()
def outputs_of(model, cfg, records):
    mapper = DatasetMapper(cfg, is_train=False)
    loader = build_detection_test_loader(dataset=records, mapper=mapper)
    return [model(inputs)[0] for inputs in loader]


@pytest.mark.parametrize("meta_architecture", ["GeneralizedRCNN", "ProposalNetwork"])
def test_the_proposals_are_those_of_the_evaluation(tmp_path, meta_architecture):
    model, cfg = model_and_cfg(meta_architecture)
    records = records_in(tmp_path)
    found = precompute(cfg, model, records)
    assert list(found) == ["0", "1"]
    expected = outputs_of(with_budgets(model, [cfg.MODEL.RPN.POST_NMS_TOPK_TEST]), cfg, records)
    for proposals, output in zip(found.values(), expected):
        assert 0 < len(proposals.boxes) <= 50
        boxes = output["proposals"].proposal_boxes.tensor
        np.testing.assert_allclose(proposals.boxes, boxes, atol=1e-4)
        logits = output["proposals"].objectness_logits
        np.testing.assert_allclose(proposals.logits, logits, atol=1e-5)


def test_a_detector_on_the_file_finds_the_same(tmp_path):
    model, cfg = model_and_cfg()
    records = records_in(tmp_path)[:1]
    path = str(tmp_path / "rpn.pkl")
    save_proposals(path, precompute(cfg, model, records))
    expected = outputs_of(model, cfg, records)[0]["instances"]

    cfg.MODEL.LOAD_PROPOSALS = True
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    on_file = build_model(cfg).eval()
    on_file.load_state_dict(model.state_dict(), strict=False)
    loaded = load_proposals_into_dataset(records, path)
    found = outputs_of(on_file, cfg, loaded)[0]["instances"]
    assert len(expected) > 0
    np.testing.assert_allclose(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
