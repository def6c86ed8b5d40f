import json

import compare_runs
import pytest
from test_comparison import RPN
from test_runs import CURVES

from nrpn_d2.evaluation.runs import write_run


def compare(*arguments):
    compare_runs.main(compare_runs.parse_args(list(map(str, arguments))))


def test_overlays_runs(tmp_path, capsys):
    for name in ("rpn", "nrpn"):
        write_run(str(tmp_path / name / "inference"), "rings", RPN, CURVES)
    compare(tmp_path / "rpn", tmp_path / "nrpn", "--output", tmp_path / "both")
    for kind in CURVES:
        assert (tmp_path / "both" / f"{kind}.png").stat().st_size > 0
    table = (tmp_path / "both" / "comparison.txt").read_text()
    assert table in capsys.readouterr().out
    assert table.splitlines()[0].split()[-2:] == ["rpn", "nrpn"]


@pytest.mark.parametrize("missing", ["curves", "recall"])
def test_runs_without_curves_have_a_table(tmp_path, missing):
    write_run(str(tmp_path / "a"), "rings", RPN, CURVES)
    path = tmp_path / "a" / "results.json"
    run = json.loads(path.read_text())
    (run if missing == "curves" else run["curves"]).pop(missing)
    path.write_text(json.dumps(run))
    compare(path, "--output", tmp_path / "new" / "folder")
    assert "65.18" in (tmp_path / "new" / "folder" / "comparison.txt").read_text()
    assert (tmp_path / "new" / "folder" / "errors.png").exists() == (missing != "curves")


@pytest.mark.parametrize(
    "broken",
    [
        {"recall": {"iou": [0.5]}},
        {"errors": {"50": 1}},
        {"errors": {"50": {"hit": "x"}}},
        {"precision_recall": {"bbox": [1]}},
        {"false_positives": {"per_image": [1], "recall": [1, 2]}},
    ],
)
def test_broken_curves_are_named(tmp_path, broken):
    write_run(str(tmp_path / "a"), "rings", RPN, {})
    path = tmp_path / "a" / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "curves": broken}))
    with pytest.raises(ValueError, match=f"curves of an evaluation: '{next(iter(broken))}' of a "):
        compare(path, "--output", tmp_path / "out")
    assert (tmp_path / "out" / "comparison.txt").exists()
