import csv
import json
import math

import numpy as np
import pytest

from nrpn_d2.evaluation import runs
from nrpn_d2.evaluation.runs import read_run, write_run

RING = "AP50-cross-ring"  # the class is "cross-ring"
METRICS = {"bbox": {"AP50": 54.4567, RING: 54.4567, "AP50-5": math.nan}}
CURVES = {
    "recall": {
        "iou": np.array([0.5, 0.7]),
        "recall_vs_iou": {"50": np.array([0.9, 0.4])},
        "num_proposals": [1, 50],
        "recall_vs_num": {"0.5": np.array([0.1, 0.9]), "AR": np.array([0.1, np.nan])},
    },
    "errors": {"50": {"hit": 20.0, "background": 80.0}},
    "false_positives": {"per_image": np.array([0.1, 1]), "recall": np.array([0.5, 0.7])},
    "precision_recall": {"bbox": {"5": np.array([1, 0.5, 0])}},
}


def test_a_written_run_is_read_again(tmp_path):
    write_run(str(tmp_path / "inference"), "rings", METRICS, CURVES)
    for path in (tmp_path, tmp_path / "inference", tmp_path / "inference" / "results.json"):
        run = read_run(str(path))
        assert run["dataset"] == "rings"
        assert run["metrics"]["bbox"]["AP50"] == 54.4567
        assert math.isnan(run["metrics"]["bbox"]["AP50-5"])
        assert run["curves"]["recall"]["recall_vs_num"] == {"0.5": [0.1, 0.9], "AR": [0.1, None]}
        assert run["curves"]["errors"] == CURVES["errors"]
        assert run["curves"]["precision_recall"]["bbox"] == {"5": [1, 0.5, 0]}
    check_files_for_people(tmp_path / "inference")


def check_files_for_people(folder):
    figures = [f"{kind}.{end}" for kind in CURVES for end in ("png", "pdf")]
    expected = {"results.json", "results.csv", *figures}
    assert {path.name for path in folder.iterdir()} == expected
    with open(folder / "results.csv") as f:
        assert list(csv.reader(f)) == [
            ["task", "metric", "class", "value"],
            ["bbox", "AP50", "", "54.46"],
            ["bbox", "AP50", "cross-ring", "54.46"],
            ["bbox", "AP50", "5", "n/a"],
        ]
    # JSON proper knows no NaN.
    json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="results.json.*inference"):
        read_run(str(tmp_path))
    path = tmp_path / "results.json"
    whole = {"dataset": "rings", "metrics": {"bbox": {"AP50": 1}}, "curves": {}}
    for content, message in (
        ("[" * 100_000, "invalid JSON"),
        ("[]", "'dataset' is missing"),
        ('{"bbox": {}}', "'dataset' is missing"),
        (json.dumps({**whole, "metrics": [1]}), "'metrics' is missing or not an object"),
        (json.dumps({**whole, "metrics": {"bbox": 1}}), "'bbox' is missing or not an object"),
        (json.dumps({**whole, "metrics": {"bbox": {"AP": "1"}}}), "'AP' is .*not a number"),
        (json.dumps({**whole, "curves": None}), "'curves' is missing or not an object"),
        (json.dumps({**whole, "curves": {"recall": [1]}}), "'recall' is missing or not an object"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"results.json.*: .*{message}"):
            read_run(str(tmp_path))


def test_figures_that_fail_lose_no_metrics(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise ValueError("no such font")

    monkeypatch.setattr(runs, "draw_runs", fail)
    write_run(str(tmp_path), "rings", METRICS, CURVES)
    assert read_run(str(tmp_path))["metrics"]["bbox"]["AP50"] == 54.4567
    assert "AP50,,54.46" in (tmp_path / "results.csv").read_text()
    assert "Not all figures" in caplog.text and "no such font" in caplog.text


def test_results_stay_whole_when_the_disk_is_full(tmp_path, monkeypatch):
    write_run(str(tmp_path), "data", {"bbox": {"AP": 1.0}}, {})
    before = (tmp_path / "results.json").read_bytes()

    def full(*args, **kwargs):
        args[1].write("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="No space left on device: .*results.json"):
        write_run(str(tmp_path), "data", {"bbox": {"AP": 2.0}}, {})
    assert (tmp_path / "results.json").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))
