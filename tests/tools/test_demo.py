"""What the demo draws and says; tests/test_train_net.py runs it from end to end."""

import json

import demo
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from small_models import TWO_OBJECTS, batch, instances, small_cfg


@pytest.mark.parametrize(
    "architecture, generator, sampler, titles",
    [
        ("GeneralizedRCNN", "HardNegativeRPN", "NRPN", ["RPN", "nRPN", "detections"]),
        ("GeneralizedRCNN", "HardNegativeRPN", "OHEM", ["RPN", "detections"]),
        ("GeneralizedRCNN", "RPN", "NRPN", ["RPN", "detections"]),
        ("ProposalNetwork", "HardNegativeRPN", "Random", ["RPN"]),
    ],
)
def test_what_a_model_has_is_drawn(architecture, generator, sampler, titles, monkeypatch):
    monkeypatch.setattr(demo, "MIN_SCORE", 0.0)
    cfg = small_cfg(
        meta_architecture=architecture,
        MODEL__PROPOSAL_GENERATOR__NAME=generator,
        MODEL__RPN__NEGATIVE_SAMPLER__NAME=sampler,
        MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0,
    )
    (inputs,) = batch(instances(TWO_OBJECTS))
    inputs.update(height=192, width=256)  # the file's size: twice the input's
    with torch.no_grad():
        views = demo.views(build_model(cfg).eval(), inputs, ["disk", "square", "triangle"])
    assert [title.removesuffix("'s proposals") for title in views] == titles
    for title, (boxes, labels) in views.items():
        assert boxes.shape[1] == 4 and (boxes <= [256, 192] * 2).all() and boxes.max() > 128
        assert len(boxes) == (demo.TOP if labels is None else len(labels)) > 0
        if title == "detections":
            assert all(label.split()[0] in ("disk", "square", "triangle") for label in labels)
    assert isinstance(boxes, np.ndarray)


@pytest.mark.parametrize(
    "phases, text",
    [
        ({0: 40.04, 1: 5.0}, "training image): 40.0 when the nRPN joined, 5.0 at the end"),
        ({1: 5.0}, "training image): 5.0 at the end"),
        ({0: 40.04}, None),
        ({}, None),
    ],
)
def test_summary(phases, text, tmp_path):
    lines = [{"nrpn/joint": p, "nrpn/false_positives": value} for p, value in phases.items()]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(x) + "\n" for x in [{}, *lines]))
    cfg = small_cfg(OUTPUT_DIR=str(tmp_path))
    results = {"box_proposals": {"R50@100": 98.04}, "bbox": {"AP50": 81.96}}
    summary = demo.summary(cfg, "c.yaml", results, "a.png", "p.png")
    assert "IoU 0.5: 98.0 %" in summary and "mAP at IoU 0.5: 82.0 %" in summary
    assert f"--input a.png --output output/predictions MODEL.WEIGHTS {tmp_path}/" in summary
    assert text in summary if text else "false positives" not in summary
