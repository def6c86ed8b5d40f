"""tools/audit_labels.py: from models to a page, from the page to a corrected dataset."""

import csv
import json
import shutil
from types import SimpleNamespace

import audit_labels
import numpy as np
import pytest
from browser import WIDTHS, opened
from detectron2.data import DatasetCatalog
from small_detectors import detector_cfg, trained
from voc_folder import write_voc_folder

from nrpn_d2.engine.defaults import build_cfg
from nrpn_d2.evaluation.audit import Candidate
from nrpn_d2.evaluation.audit_page import write_candidates, write_sheet
from nrpn_d2.evaluation.ground_truth import GroundTruth, load_ground_truth

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'"
NAMES = ["cat", HOSTILE]
CANDIDATES = [
    Candidate("a", (30.0, 5.0, 55.0, 35.0), 0.9, 1.0, "cat"),
    Candidate(HOSTILE, (10.0, 5.0, 20.0, 15.0), 0.8, 0.5, HOSTILE),
    Candidate(HOSTILE, (40.0, 25.0, 50.0, 35.0), 0.4, 0.5, ""),
    Candidate("a", (31.0, 3.0, 35.0, 9.0), 0.3, 0.5, "cat"),
]


@pytest.fixture
def own(tmp_path, restored_catalogs):
    """The words of a command line that name a dataset of two images."""
    images = [{"id": "a", "objects": [("cat", (3, 3, 25, 30))]}, {"id": HOSTILE.replace("/", "")}]
    root = write_voc_folder(tmp_path / "voc", images)
    return ["DATASETS.OWN", str([["own", root]]), "DATASETS.VOC_CLASSES", str(NAMES)]


def audit(*words):
    audit_labels.main(audit_labels.parse_args(list(map(str, words))))


@pytest.fixture
def sheet(own, tmp_path):
    build_cfg("", own)
    hostile = HOSTILE.replace("/", "")
    candidates = [c._replace(image_id="a" if c.image_id == "a" else hostile) for c in CANDIDATES]
    write_candidates(str(tmp_path), candidates)
    write_sheet(str(tmp_path / "audit.html"), candidates, load_ground_truth("own_train"))
    return tmp_path


def test_lists(sheet):
    rows = json.loads((sheet / "candidates.json").read_text())
    assert [row["class_name"] for row in rows] == ["cat", HOSTILE, "", "cat"]
    with open(sheet / "candidates.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["class_name"] for row in table] == ["cat", HOSTILE, "", "cat"]
    assert float(table[0]["x1"]) == 55 and table[1]["image_id"] == HOSTILE.replace("/", "")


@pytest.mark.parametrize("width", WIDTHS)
def test_decide_reload_export_and_apply(sheet, own, browser, width):
    """By mouse and by keys."""
    with opened(browser, sheet / "audit.html", width) as page:
        cards = page.locator(".candidate")
        assert cards.count() == 4 and page.locator("svg.zoomable").count() == 4
        assert page.locator("img").count() == 0
        assert cards.nth(1).locator("select").input_value() == HOSTILE
        cards.nth(0).get_by_label("object").click()
        page.keyboard.press("j")
        page.keyboard.press("i")  # of the second
        page.keyboard.press("o")  # the third has no class yet: it stays current
        assert "3 of 4 decided" in page.locator("output").inner_text()
        page.get_by_role("button", name="Export").click()
        assert "needs a class" in page.locator("output").inner_text()
        page.keyboard.press("1")
        page.keyboard.press("j")
        page.keyboard.press("b")
        page.reload()
        assert (
            "4 of 4 decided: object 2, background 1, ignore 1"
            in page.locator("output").inner_text()
        )
        assert cards.nth(2).locator("select").input_value() == "cat"
        cards.nth(2).locator("select").select_option(HOSTILE)
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        decisions = sheet / download.value.suggested_filename
        download.value.save_as(decisions)
    config = sheet / "config.yaml"
    config.write_text("DATASETS:\n  TRAIN: ('own_train',)\n")
    audit("--config-file", config, "--apply", decisions, "--output", sheet / "new", *own)
    build_cfg("", [own[0], str([["own", str(sheet / "new")]]), *own[2:]])
    first, second = (r["annotations"] for r in DatasetCatalog.get("own_train"))
    assert [(a["category_id"], a["difficult"]) for a in first] == [(0, 0), (0, 0)]
    assert [(a["category_id"], a["difficult"]) for a in second] == [(1, 1), (1, 0)]
    assert second[0]["bbox"] == [10, 5, 20, 15]


@pytest.mark.parametrize("flag", ["--top=-5", "--min-score=7"])
def test_flags_out_of_range(flag, capsys):
    with pytest.raises(SystemExit):
        audit("--config-file", "x", "--output", "y", "--models", "z", flag)
    assert "it must be" in capsys.readouterr().err


def test_numbers_and_names_are_exported_as_they_are(browser, tmp_path):
    number, name, path = 2**53 + 1, "a  b", tmp_path / "audit.html"
    empty = np.zeros((0, 4)), *[np.zeros(0, int)] * 4
    truth = GroundTruth("set", [name], {number: 0}, *empty, [""])
    write_sheet(str(path), [CANDIDATES[0]._replace(image_id=number, class_name=name)], truth)
    with opened(browser, path) as page:
        page.keyboard.press("o")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        content = json.loads(download.value.path().read_text())
    box = list(CANDIDATES[0].box)
    entry = {"image_id": number, "box": box, "decision": "object", "class": name}
    assert content == {"dataset": "set", "decisions": [entry]}
    write_sheet(str(path), [], truth)
    with opened(browser, path) as page:
        page.keyboard.press("o")


@pytest.fixture
def detector(own, tmp_path):
    """A model of random weights: the words of its config and the path of its checkpoint."""
    cfg = detector_cfg("vgg", MODEL__ROI_HEADS__NUM_CLASSES=2, DATASETS__TRAIN="('own_train',)")
    config, (_, weights) = trained(cfg, tmp_path / "model")
    return [*config, *own], weights


def test_models_judge_together(detector, tmp_path):
    words, weights = detector
    models = f"{weights},{shutil.copy(weights, tmp_path / 'copy.pth')}"
    audit(*words, "--models", models, "--output", tmp_path / "out", "--top", 5)
    rows = json.loads((tmp_path / "out" / "candidates.json").read_text())
    assert len(rows) > 5 and {row["agreement"] for row in rows} == {1}
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert (tmp_path / "out" / "audit.html").read_text().count('class="candidate"') == 5


def test_each_fold_judges_what_it_did_not_see(detector, tmp_path, monkeypatch):
    words, weights = detector
    commands = []

    def train(command):
        folder = command[command.index("OUTPUT_DIR") + 1]
        commands.append(command)
        (tmp_path / "out" / folder).mkdir(parents=True)
        shutil.copy(weights, f"{folder}/model_final.pth")
        return SimpleNamespace(returncode=len(commands) == 2)

    monkeypatch.setattr(audit_labels.subprocess, "run", train)
    flags = [*words, "--folds", 2, "--output", tmp_path / "out", "--num-gpus", 0]
    with pytest.raises(SystemExit, match="fold 1 was not trained"):
        audit(*flags)
    shutil.rmtree(tmp_path / "out" / "own_train_without1of2")
    audit(*flags)
    trained_on = [c[c.index("DATASETS.TRAIN") + 1] for c in commands]
    assert trained_on == [f"('own_train_without{n}of2',)" for n in (0, 1, 1)]
    rows = json.loads((tmp_path / "out" / "candidates.json").read_text())
    assert len({row["image_id"] for row in rows}) == 2 and {row["agreement"] for row in rows} == {1}
