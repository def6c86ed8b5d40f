"""A detector on proposals from a file: trained on them, evaluated with the best of each image."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from small_training import train, training_cfg, write_images

from nrpn_d2.checkpoint.trained_model import load_weights
from nrpn_d2.data.proposal_files import Proposals, save_proposals
from nrpn_d2.engine.trainer import Trainer

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


def test_a_budget_is_that_many_proposals_of_the_file(on_files):
    model = train(on_files(SOLVER__MAX_ITER=2)).model
    results = Trainer.test(on_files(), model)
    assert results["box_proposals"]["R90@20"] == 100 > results["box_proposals"]["R90@3"] > 0
    assert results["bbox@3"]["AP50"] > 0
    for budget in BUDGETS:
        cfg = on_files(DATASETS__PRECOMPUTED_PROPOSAL_TOPK_TEST=budget)
        alone = Trainer.test(cfg, model)
        assert results[f"bbox@{budget}"] == pytest.approx(alone["bbox"], nan_ok=True)


def test_a_detector_that_was_trained_with_its_rpn(on_files, tmp_path):
    joint = {"MODEL__LOAD_PROPOSALS": False, "MODEL__PROPOSAL_GENERATOR__NAME": "HardNegativeRPN"}
    train(on_files(SOLVER__MAX_ITER=2, DATASETS__TEST=(), **joint))
    cfg = on_files(MODEL__WEIGHTS=str(tmp_path / "out" / "model_final.pth"))
    model = Trainer.build_model(cfg)
    load_weights(cfg, model)
    assert "bbox@3" in Trainer.test(cfg, model)
