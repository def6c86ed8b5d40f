import copy

import compare_runs
import pytest
from test_output import CURVES

from nrpn_d2.evaluation.output import write_run
from nrpn_d2.evaluation.report import comparison_table

RPN = {
    "box_proposals": {"AR@50": 40.5, "R50@50": 81.7, "R50s@50": 1.0, "R70@50": 57.1},
    "proposal_errors": {"background@50": 80.0, "background>0.5": 9.0, "background>0.7": 1.25},
    "bbox@50": {"AP50": 65.18, "AP": 1.0},
    "bbox": {"AP50": 65.18, "AP": 1.0},
}


def test_one_column_per_run_and_one_row_per_metric():
    edge_boxes = copy.deepcopy(RPN)
    del edge_boxes["bbox@50"], edge_boxes["bbox"]
    edge_boxes["box_proposals"] |= {"R50@50": 60.0, "R50@100": 70.0}
    rows = comparison_table({"RPN": RPN, "Edge Boxes": edge_boxes}).splitlines()
    assert [" ".join(row.split()) for row in rows[2:]] == [
        "AR 50 40.50 40.50",
        "recall, IoU 0.5 50 81.70 60.00",
        "recall, IoU 0.7 50 57.10 57.10",
        "background, score > 0.7, per image 50 1.25 1.25",
        "mAP, IoU 0.5 50 65.18 n/a",
        "recall, IoU 0.5 100 n/a 70.00",
    ]


def test_counts_among_other_numbers_of_proposals_have_rows_of_their_own():
    errors = {"background@50": 80.0, "background@100": 90.0, "background>0.7": 3.5}
    rows = comparison_table({"A": RPN, "B": {"proposal_errors": errors}}).splitlines()
    rows = [" ".join(row.split()) for row in rows if "background" in row]
    assert rows == [
        "background, score > 0.7, per image 50 1.25 n/a",
        "background, score > 0.7, per image 100 n/a 3.50",
    ]


def test_what_a_run_lacks_is_not_available():
    lacking = {"proposal_errors": {"background@50": 80.0}, "bbox@50": {"AP": 1.0}}
    rows = comparison_table({"whole": RPN, "lacking": lacking}).splitlines()
    assert ["1.25", "n/a"] in [row.split()[-2:] for row in rows if "background" in row]
    assert ["65.18", "n/a"] in [row.split()[-2:] for row in rows if "mAP" in row]


def test_a_detector_without_budgets_has_one_ap():
    assert "mAP, IoU 0.5" in comparison_table({"run": {"bbox": {"AP50": 3.25}}})


def test_runs_are_named_after_their_folders():
    names = compare_runs.run_names
    assert names(["out/rpn/", "out/nrpn/inference", "x/ours/results.json"]) == [
        "rpn",
        "nrpn",
        "ours",
    ]
    assert names(["a/bccd/s0/inference/results.json", "b/bccd/s0"]) == ["a/bccd/s0", "b/bccd/s0"]
    with pytest.raises(ValueError, match="out/rpn/inference is given twice"):
        names(["out/rpn", "out/rpn/inference"])


def test_overlays_runs(tmp_path, capsys):
    for name in ("rpn", "nrpn"):
        write_run(str(tmp_path / name / "inference"), "rings", RPN, CURVES)
    runs = [str(tmp_path / name) for name in ("rpn", "nrpn")]
    compare_runs.main([*runs, "--output", str(tmp_path / "both")])
    for name in ("recall.png", "recall.pdf", "errors.png", "precision_recall.png"):
        assert (tmp_path / "both" / name).stat().st_size > 0
    table = (tmp_path / "both" / "comparison.txt").read_text()
    assert table in capsys.readouterr().out
    assert table.splitlines()[0].split()[-2:] == ["rpn", "nrpn"]


def test_runs_of_different_datasets_are_refused(tmp_path):
    write_run(str(tmp_path / "a"), "rings", RPN, {})
    write_run(str(tmp_path / "b"), "discs", RPN, {})
    with pytest.raises(SystemExit, match="different datasets.*a of 'rings', b of 'discs'"):
        compare_runs.main([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(SystemExit, match="no results.json"):
        compare_runs.main([str(tmp_path / "nowhere")])
    (tmp_path / "a" / "results.json").write_text('{"metrics": {}, "curves": {}}')
    with pytest.raises(SystemExit, match="a/results.json is not .*'dataset' is missing"):
        compare_runs.main([str(tmp_path / "a")])


def test_runs_without_curves_have_a_table(tmp_path):
    write_run(str(tmp_path / "a"), "rings", RPN, {})
    compare_runs.main([str(tmp_path / "a"), "--output", str(tmp_path / "new" / "folder")])
    assert "65.18" in (tmp_path / "new" / "folder" / "comparison.txt").read_text()
    with pytest.raises(SystemExit, match="results.json"):
        compare_runs.main([str(tmp_path / "a"), "--output", str(tmp_path / "a" / "results.json")])
