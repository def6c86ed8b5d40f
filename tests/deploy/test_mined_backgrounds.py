"""Mining of backgrounds: what counts, what comes first, what is written, and the contact sheet."""

import csv

import mine_backgrounds
import numpy as np
import pytest
import torch
from browser import WIDTHS, opened
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image
from small_detectors import detector_cfg, trained

from nrpn_d2.deploy.backgrounds import find_backgrounds, page_content, to_learn_from
from nrpn_d2.engine.defaults import build_cfg
from nrpn_d2.utils.page import write_page

HERE, THERE = [5.0, 5, 25, 25], [30.0, 5, 55, 35]
HOSTILE = "<img src=x onerror=alert(1)>&\"'.png"


class Oracle:
    """A predictor that finds in each image what is said in advance: the corner's value -> boxes."""

    def __init__(self, findings):
        self.findings = findings

    def inputs_of_rgb(self, image):
        return {"image": torch.from_numpy(image).permute(2, 0, 1)}

    def detect_batch(self, inputs):
        return [self._detections(self.findings[int(x["image"][0, 0, 0])]) for x in inputs]

    def _detections(self, found):
        detections = Instances((40, 60))
        detections.pred_boxes = Boxes(torch.tensor([box for box, *_ in found]).reshape(-1, 4))
        detections.scores = torch.tensor([score for _, score, _ in found])
        detections.pred_classes = torch.tensor([c for *_, c in found], dtype=torch.long)
        return detections


def save(path, seed, corner):
    """An image whose coarse structure is its own; its corner names what is found in it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((60, 40), Image.Resampling.BICUBIC))
    pixels[0, 0] = corner
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.fixture
def mined(tmp_path):
    findings = {
        1: [(HERE, 0.9, 0)],
        2: [(HERE, 0.8, 1), (THERE, 0.7, 0), (THERE, 0.3, 1)],
        3: [(HERE, 0.4, 0)],
        4: [(HERE, 0.95, 0), (THERE, 0.6, 1)],  # HERE there is an object
        5: [(HERE, 0.5, 1), (THERE, 0.9, 0)],  # it looks like 2
    }
    paths = {n: save(tmp_path / f"{n}.png", min(n, 4 if n != 5 else 2), n) for n in findings}
    records = [{"file_name": path} for path in paths.values()]
    objects = [{"bbox": [6, 5, 25, 25], "bbox_mode": 0, "category_id": 0}]
    records[3]["annotations"] = objects
    crowd = {"bbox": [25, 0, 60, 40], "bbox_mode": 0, "category_id": 0, "iscrowd": 1}
    records[4]["annotations"] = [crowd]  # THERE lies on it, and with an IoU below 0.6
    for number, name in ((1, " a.png"), (2, "\u2028.png"), (3, "a.tif")):
        records.append({"file_name": save(tmp_path / name, 7, number)})
    (tmp_path / "broken.png").write_bytes(b"PNG")
    records.append({"file_name": str(tmp_path / "broken.png")})
    limits = {"min_score": 0.5, "max_iou": 0.6, "max_covered": 0.5}
    return find_backgrounds(Oracle(findings), records, ["cat", "dog"], **limits)


def test_confident_false_positives_come_first(mined):
    ranked, failures = mined
    names = [image.path[-5:] for image in ranked]
    assert names == ["2.png", "1.png", "4.png", "5.png"]  # sums 1.5, 0.9, 0.6 and 0.5
    assert ranked[0].classes == ["dog", "cat"] and ranked[0].boxes.tolist() == [HERE, THERE]
    assert ranked[2].boxes.tolist() == [THERE] and len(ranked[2].objects) == 1
    assert [image.like[-5:] for image in ranked] == ["", "", "", "2.png"]
    assert [image.path for image in to_learn_from(ranked)] == [image.path for image in ranked[:2]]
    assert len(to_learn_from(ranked, 1)) == 1
    words = (" a.png: a list cannot", ".png: a list cannot", "to JPEG or", "broken.png: cannot be")
    assert [word in failure for word, failure in zip(words, failures)] == [True] * 4, failures


@pytest.mark.parametrize("width", WIDTHS)
def test_the_contact_sheet_in_a_browser(mined, tmp_path, browser, width):
    ranked = mined[0]
    hostile = ranked[0]._replace(path=save(tmp_path / HOSTILE, 9, 1))
    path = tmp_path / "sheet.html"
    write_page(str(path), "Backgrounds", list(page_content([hostile, *ranked[1:]], [hostile])))
    with opened(browser, path, width) as page:
        assert page.locator("svg.zoomable").count() == 3  # less the near-duplicate
        assert page.locator("svg.zoomable rect.fault").count() == 4
        assert "it has 1 labelled objects" in page.locator("figure").nth(2).inner_text()
        page.locator("svg.zoomable").first.click()
        assert HOSTILE in page.locator("dialog[open] p").inner_text()


@pytest.mark.parametrize("architecture", ["GeneralizedRCNN", "ProposalNetwork"])
def test_from_a_folder_to_a_dataset_to_train_on(run, architecture, capsys):
    cfg = detector_cfg("vgg", MODEL__META_ARCHITECTURE=architecture)
    cfg.DATASETS.VOC_CLASSES = ["red", "white", "blue"]
    config, weights = trained(cfg, run.folder / "model")
    folder = run.folder / "empty"
    folder.mkdir()
    for n in range(3):
        save(folder / f"{n}: {n}.png", n, n)
    (folder / "clip.mp4").write_bytes(b"")
    (run.folder / "seen.txt").write_text("0: 0.png\n2: 2.png\n")
    seen = f"[['backgrounds', '{run.folder}/seen.txt', '{folder}']]"
    words = [*config, "--images", str(folder), "--output", str(run.out), "--min-score", "0"]
    words += ["--dataset", "backgrounds", "--count", "2", *weights, "DATASETS.OWN", seen]
    with pytest.raises(SystemExit, match="1 of 4 files could not be used:\n.*clip.mp4: cannot be"):
        mine_backgrounds.main(mine_backgrounds.parse_args(words))
    with open(run.out / "backgrounds.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and [row["taken"] for row in rows] == ["1", "1", "0"]
    sums = [float(row["sum"]) for row in rows]
    assert sums == sorted(sums, reverse=True)
    own = f"{seen[:-1]}, ['backgrounds2', '{run.out}/backgrounds.txt', '{folder}']]"
    assert f'DATASETS.OWN "{own}"' in capsys.readouterr().out
    build_cfg("", ["DATASETS.OWN", own])
    taken = [record["file_name"] for record in DatasetCatalog.get("backgrounds2")]
    assert taken == [row["image"] for row in rows[:2]]


def test_labels_of_a_dataset_are_no_false_positives(run):
    """Nothing is off an object that covers the image."""
    cfg = detector_cfg("vgg", MODEL__ROI_HEADS__NUM_CLASSES=1)
    config, weights = trained(cfg, run.folder / "model")
    run.objects(("cat", (1, 1, 64, 48)))
    data = ["DATASETS.OWN", f"[['own', '{run.root}']]", "DATASETS.VOC_CLASSES", "['cat']"]
    words = [*config, "--dataset", "own_train", "--output", str(run.out), "--min-score", "0"]
    mine_backgrounds.main(
        mine_backgrounds.parse_args([*words, *data, *weights, "MODEL.NRPN.FP_IOU", "0.001"])
    )
    assert len((run.out / "backgrounds.csv").read_text().splitlines()) == 1
    assert not (run.out / "backgrounds.txt").exists()
