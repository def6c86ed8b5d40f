"""A detector on proposals from a file: trained on them, evaluated with the best of each image."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from small_training import train, training_cfg, write_images

from nrpn_d2.checkpoint.trained_model import load_weights
from nrpn_d2.data.proposal_files import Proposals, save_proposals
from nrpn_d2.engine.trainer import Trainer
from nrpn_d2.evaluation import with_budgets

BUDGETS = [3, 20]


@pytest.fixture
def on_files(tmp_path, restored_catalogs):
    """Give a config by its overrides, after proposals have been written: beside the objects, and,
    from the third on, the objects. They have ranks only, as those of Selective Search.
    """
    write_images(tmp_path / "data")
    training_cfg(tmp_path / "data", tmp_path / "out")  # registers
    path, proposals = str(tmp_path / "file.pkl"), {}
    for record in DatasetCatalog.get("small_train"):
        objects = [annotation["bbox"] for annotation in record["annotations"]]
        boxes = np.array([[0, 0, 9, 9], [30, 40, 60, 60], *objects], np.float32)
        proposals[record["image_id"]] = Proposals(boxes, None)
    save_proposals(path, proposals)

    def config(**overrides):
        settings = {
            "MODEL__LOAD_PROPOSALS": True,
            "MODEL__PROPOSAL_GENERATOR__NAME": "PrecomputedProposals",
            "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0,
            "DATASETS__PROPOSAL_FILES_TRAIN": (path,),
            "DATASETS__PROPOSAL_FILES_TEST": (path,),
            "DATASETS__TEST": ("small_test",),
            "TEST__PROPOSALS__BUDGETS": BUDGETS,
            **overrides,
        }
        return training_cfg(tmp_path / "data", tmp_path / "out", **settings)

    return config


@torch.no_grad()
def detections(cfg, model):
    """Detections of all images: in all proposals, and in the budgets' best."""
    outputs = []
    for inputs in Trainer.build_test_loader(cfg, "small_test"):
        outputs += with_budgets(model, BUDGETS)(inputs)
    return outputs


def test_a_budget_is_that_many_proposals_of_the_file(on_files):
    model = train(on_files(SOLVER__MAX_ITER=2, DATASETS__TEST=())).model.eval()
    in_all = detections(on_files(), model)
    for budget in BUDGETS:
        cfg = on_files(DATASETS__PRECOMPUTED_PROPOSAL_TOPK_TEST=budget)
        for output, alone in zip(in_all, detections(cfg, model), strict=True):
            assert 0 < len(alone["proposals"]) <= budget
            of_budget = output["instances_at"][budget].pred_boxes.tensor
            torch.testing.assert_close(of_budget, alone["instances"].pred_boxes.tensor)
    recall = Trainer.test(on_files(), model)["box_proposals"]
    assert recall["R90@20"] == 100 > recall["R90@3"] > 0


def test_a_detector_that_was_trained_with_its_rpn(on_files, tmp_path):
    joint = {"MODEL__LOAD_PROPOSALS": False, "MODEL__PROPOSAL_GENERATOR__NAME": "HardNegativeRPN"}
    train(on_files(SOLVER__MAX_ITER=2, DATASETS__TEST=(), **joint))
    cfg = on_files(MODEL__WEIGHTS=str(tmp_path / "out" / "model_final.pth"))
    model = Trainer.build_model(cfg)
    load_weights(cfg, model)
    assert "bbox@3" in Trainer.test(cfg, model)
