"""tools/compare_runs.py: table, figures and page of several runs, and of one."""

import json
import shutil

import compare_runs
import pytest
from browser import WIDTHS, column, opened
from run_folders import write_run_folder
from test_comparison import RPN
from test_runs import CURVES

from nrpn_d2.evaluation.page.pages import write_comparison_page
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
    assert "<title>Comparison: rpn, nrpn</title>" in (tmp_path / "both" / "index.html").read_text()
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
    assert {"comparison.txt", "index.html"} <= {x.name for x in (tmp_path / "out").iterdir()}


GROUP = "<b>nRPN"


@pytest.fixture(scope="module")
def page_of_runs(tmp_path_factory):
    """Of a run, and of a group of two that are better."""
    folder = tmp_path_factory.mktemp("runs")
    images = folder / "images"
    first, *others = (
        write_run_folder(folder / name, gain=gain, images=images)
        for name, gain in (("rpn", 0), ("seed1", 10), ("seed2", 12))
    )
    group = f"{GROUP}={','.join(map(str, others))}"
    return write_comparison_page([str(first), group], str(folder))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_of_several_runs(page_of_runs, browser, width):
    with opened(browser, page_of_runs, width) as page:
        tiles = page.locator(".tiles").inner_text()
        # Means of 70 and 72, and of 2.5 and 2.3
        assert f"71\nmAP, IoU 0.5\nbest: {GROUP}; rpn 60" in tiles
        assert f"2.4\nconfident background per image\nbest: {GROUP}; rpn 3.5" in tiles
        headers = page.locator("section:first-of-type th").all_inner_texts()
        assert [h.split(" ")[0] for h in headers[2:]] == ["rpn", GROUP, GROUP]
        assert headers[-1].startswith(f"{GROUP} − rpn")
        row = page.locator("tr", has_text="mAP, IoU 0.5").locator("td").all_inner_texts()
        assert row[2:] == ["60", "71 ± 13", "+11"]
        page.locator("section:first-of-type th button").last.click()
        assert column(page, 0)[0] == "mAP, IoU 0.5"
        assert page.locator(".plot path.band").count() > 5
        losses = page.locator("figure", has_text="Losses: total").locator(".legend")
        assert losses.inner_text().split("\n")[0].startswith("rpn")
        # Images 2 and 3 have two mistakes fewer, image 1 one, each beside its other self
        names = page.locator(".pairs h3").all_inner_texts()
        assert names == ["2.png", "3.png", "1.png"]
        captions = page.locator(".pairs .pair").nth(1).locator("figcaption").all_inner_texts()
        assert captions == ["rpn: 3 wrong, 1 missed", f"{GROUP}, seed1: 1 wrong, 1 missed"]
        body = page.locator("body").inner_text()
        assert f"Score thresholds to use. rpn 0.37; {GROUP} 0.37, 0.37." in body
        assert f"Confusions of {GROUP}, seed1" in body and f"How {GROUP}, seed2 was run" in body


def test_one_run_has_its_own_page_also_without_an_evaluation(tmp_path):
    folder = write_run_folder(tmp_path / "rpn")
    shutil.rmtree(folder / "inference")
    compare(folder, "--output", tmp_path)
    assert "<title>Run rpn</title>" in (tmp_path / "index.html").read_text()
    with pytest.raises(FileNotFoundError, match="no does not exist"):
        compare(tmp_path / "no", "--output", tmp_path)
