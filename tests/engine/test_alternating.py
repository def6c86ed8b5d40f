"""RPN and detector trained in turn, until they share a backbone."""

import itertools
import os

import pytest
import torch
from small_training import assert_same_state, final_state, training_cfg, write_images

from nrpn_d2.checkpoint.trained_model import load_model
from nrpn_d2.data.proposal_files import load_proposals
from nrpn_d2.engine.alternating import (
    FINAL,
    STEPS,
    check_alternating,
    config_of_step,
    proposal_files,
    train_alternating,
)
from nrpn_d2.engine.trainer import Trainer

KINDS = {
    "vgg": {"MODEL__VGG__NORM": "BN"},
    "fpn": {
        "backbone": "fpn",
        "MODEL__RESNETS__NORM": "BN",
        "MODEL__NRPN__SHARE_FEATURES": True,
        "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 8,
    },
}


def config(folder, kind, **overrides):
    write_images(folder / "data")
    cfg = training_cfg(folder / "data", folder / "out", **{**KINDS[kind], **overrides})
    cfg.freeze()
    return cfg


def part(state, *prefixes):
    return {name: value for name, value in state["model"].items() if name.startswith(prefixes)}


def differs(one, other):
    assert one.keys() == other.keys() and one
    return any(not torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_halves_share_a_backbone(kind, tmp_path, restored_catalogs, caplog):
    test = {"DATASETS__TEST": ("small_test",), "TEST__PROPOSALS__BUDGETS": [5, 20]}
    numbers = {"MODEL__RPN__POST_NMS_TOPK_TRAIN": 30, "MODEL__RPN__POST_NMS_TOPK_TEST": 5}
    cfg = config(tmp_path, kind, **test, **numbers)
    results = train_alternating(cfg, [2, 3, 2, 2])
    # The detectors had as many proposals as joint training gives them
    proposals = load_proposals(proposal_files(cfg, 0)[0])
    assert 5 < max(len(boxes) for boxes, _ in proposals.values()) <= 30
    assert config_of_step(cfg, 1).DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN == 30
    rpn1, detector2, rpn3, detector4 = (
        final_state(os.path.join(cfg.OUTPUT_DIR, step.folder)) for step in STEPS
    )
    final = final_state(cfg.OUTPUT_DIR)
    backbone = part(final, "backbone.")
    assert any("running_mean" in name for name in backbone)
    for shared in (detector2, rpn3, detector4):
        assert_same_state(backbone, part(shared, "backbone."))
    assert differs(backbone, part(rpn1, "backbone."))
    assert_same_state(part(final, "proposal_generator."), part(rpn3, "proposal_generator."))
    assert_same_state(part(final, "roi_heads."), part(detector4, "roi_heads."))
    assert differs(part(rpn3, "proposal_generator."), part(rpn1, "proposal_generator."))
    assert differs(part(detector4, "roi_heads."), part(detector2, "roi_heads."))

    os.utime(proposal_files(cfg, 0)[0], (0, 0))  # of a step 1 that was deleted since
    train_alternating(cfg, [2, 3, 2, 3])
    assert os.path.getmtime(proposal_files(cfg, 0)[0]) > 0
    (warning,) = [text for text in caplog.messages if "another config" in text]
    assert "step4_detector/model_final.pth was trained with another config and is not" in warning

    evaluated = cfg.clone()  # as train_net.py --eval-only
    evaluated.defrost()
    evaluated.MODEL.WEIGHTS = os.path.join(cfg.OUTPUT_DIR, f"{FINAL}.pth")
    again = Trainer.test(evaluated, load_model(evaluated))
    for task, metrics in results.items():
        assert again[task] == pytest.approx(metrics, nan_ok=True)


def test_killed_again_and_again(tmp_path, monkeypatch, restored_catalogs):
    """Before any file that it was about to write."""
    undisturbed = config(tmp_path, "vgg")
    train_alternating(undisturbed, [4] * 4)
    cfg = undisturbed.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(tmp_path / "killed")
    cfg.freeze()
    left, replace = iter(()), os.replace

    def killing(*paths):
        if next(left, None) is None:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", killing)
    for kills in itertools.count():
        left = iter(range(8 + kills % 3))
        try:
            train_alternating(cfg, [4] * 4)
            break
        except KeyboardInterrupt:
            assert kills < 40
    assert kills > 6
    states = [final_state(output) for output in (undisturbed.OUTPUT_DIR, cfg.OUTPUT_DIR)]
    assert_same_state(*states)


@pytest.mark.parametrize(
    ("overrides", "iterations", "message"),
    [
        ({"MODEL__LOAD_PROPOSALS": True}, (), "MODEL.LOAD_PROPOSALS.* makes its own"),
        (
            {"MODEL__PROPOSAL_GENERATOR__NAME": "PrecomputedProposals"},
            (),
            "'PrecomputedProposals'.*its RPN",
        ),
        ({"meta_architecture": "ProposalNetwork"}, (), "'ProposalNetwork', which has no ROI heads"),
        ({}, (5, 5, 5), "--iterations is 5 5 5; it must be 4 positive"),
        ({}, (5, 5, 0, 5), "--iterations is 5 5 0 5"),
    ],
)
def test_what_cannot_alternate(overrides, iterations, message, tmp_path, restored_catalogs):
    with pytest.raises(ValueError, match=message):
        check_alternating(config(tmp_path, "vgg", **overrides), iterations)
