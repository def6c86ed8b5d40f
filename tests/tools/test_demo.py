"""What the demo says; tests/test_train_net.py runs it from end to end."""

import json

import demo
import pytest
from small_models import small_cfg


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
