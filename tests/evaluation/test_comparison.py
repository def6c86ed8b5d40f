import os

import pytest

from nrpn_d2.evaluation.comparison import (
    compare_runs,
    comparison_table,
    group_runs,
    run_names,
)
from nrpn_d2.evaluation.runs import write_run

RPN = {
    "box_proposals": {"AR": 60.0, "AR@50": 40.5, "R50@50": 81.7, "R50s@50": 1.0, "R70-a@50": 2.0},
    "proposal_errors": {"background@50": 80.0, "background>0.5": 9.0, "background>0.7": 1.25},
    "bbox": {"AP50": 70.0, "AP": 1.0},
    "bbox@50": {"AP50": 65.18, "AP": 1.0},
}


def test_one_column_per_run_and_one_row_per_metric():
    edge_boxes = {"box_proposals": {"R50@50": 60.0, "R50@100": 70.0}, "bbox@50": {"AP": 1.0}}
    rows = comparison_table({"RPN": [RPN], "Edge Boxes": [edge_boxes]}).splitlines()
    assert [" ".join(row.split()) for row in rows[2:]] == [
        "AR as configured 60.00 n/a",
        "AR 50 40.50 n/a",
        "recall, IoU 0.5 50 81.70 60.00",
        "background, score > 0.7, per image as configured 1.25 n/a",
        "mAP, IoU 0.5 as configured 70.00 n/a",
        "mAP, IoU 0.5 50 65.18 n/a",
        "recall, IoU 0.5 100 n/a 70.00",
    ]


def test_runs_are_named_after_their_folders():
    assert run_names(["out/rpn/", "out/nrpn/inference", "x/ours/results.json"]) == [
        "rpn",
        "nrpn",
        "ours",
    ]
    paths = ["a/bccd/s0/inference/results.json", "b/bccd/s0"]
    assert run_names(paths) == ["a/bccd/s0", "b/bccd/s0"]
    with pytest.raises(ValueError, match="out/rpn/inference is given twice"):
        run_names(["out/rpn", "out/rpn/inference"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["A=a", "A=b"], "A is given twice; write A=PATH,PATH"),
        (["q/x", "x=q/y"], "x is given twice"),
        (["A=a,"], "A=a,: a path is empty"),
    ],
)
def test_groups_that_would_lose_a_run(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_runs(arguments)


def test_a_folder_whose_name_is_no_text(tmp_path):
    folder = os.path.join(tmp_path, os.fsdecode(b"r\xff"))
    write_run(str(tmp_path / "r"), "rings", RPN, {})
    os.rename(tmp_path / "r", folder)  # after the log, which a test's process could not send
    table = compare_runs([folder], str(tmp_path))
    assert (tmp_path / "comparison.txt").read_bytes().decode() == f"{table}\n"  # it can be printed
    assert r"r\udcff" in (tmp_path / "comparison.txt").read_text()


def test_runs_of_different_datasets_are_refused(tmp_path):
    write_run(str(tmp_path / "a"), "rings", RPN, {})
    write_run(str(tmp_path / "b"), "discs", RPN, {})
    with pytest.raises(ValueError, match="different datasets.*a of 'rings', .*b of 'discs'"):
        compare_runs([str(tmp_path / "a"), str(tmp_path / "b")], str(tmp_path / "both"))


def test_a_group_of_seeds_has_mean_and_interval(tmp_path):
    # 60 and 62: mean 61, standard error 1, and 12.706 of them for two values
    for seed, ar in ((1, 60.0), (2, 62.0)):
        write_run(str(tmp_path / f"s{seed}"), "rings", {"box_proposals": {"AR": ar, "AR@5": 1}}, {})
    write_run(str(tmp_path / "s2" / "other"), "rings", {"box_proposals": {"AR": 1.0}}, {})
    one, two, other = (str(tmp_path / part) for part in ("s1", "s2", "s2/other"))
    table = compare_runs([f"RPN={one},{two}", other], str(tmp_path))
    header, _, *rows = [line.split() for line in table.splitlines()]
    assert header == ["#proposals", "RPN", "(2)", "other"]
    assert rows[0] == ["AR", "as", "configured", "61.00", "+-", "12.71", "1.00"]
    assert rows[1] == ["AR", "5", "1.00", "+-", "0.00", "n/a"]
