"""tools/check_dataset.py: what it finds, its page, and its exit codes."""

import json
import runpy
import shutil
from html.parser import HTMLParser

import check_dataset
import numpy as np
import pytest
from browser import WIDTHS, opened
from exports import to_coco, to_yolo
from hostile_files import POSTSCRIPT
from PIL import Image
from small_run import ROOT
from voc_folder import write_voc_folder

from nrpn_d2.data import read_voc
from nrpn_d2.data.inspection.findings import large_boxes, near_duplicates
from nrpn_d2.data.inspection.image import Task, inspect_image

CAT, DOG = ("cat", (3, 3, 30, 30)), ("dog", (35, 5, 55, 35))
HOSTILE = "<img src=x onerror=alert(1)>&\"'"


def noise(seed):
    """An image whose coarse structure, which the hash sees, is its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((60, 40), Image.Resampling.BICUBIC))


def check(run, *images, splits=None, flags=()):
    """Returns whether something is wrong, the report, and the page."""
    root = write_voc_folder(run.folder / "checked", images, splits)
    run.options["DATASETS.VOC_ROOT"] = str(root)
    run.options["DATASETS.VOC_CLASSES"] = "['cat', 'dog']"
    run.options["MODEL.ROI_HEADS.NUM_CLASSES"] = "2"
    return check_run(run, *flags)


def check_run(run, *flags):
    out = run.folder / "report"
    options = [word for pair in run.options.items() for word in pair]
    words = ["--config-file", str(run.config), "--output", str(out), *flags, *options]
    is_wrong = check_dataset.main(check_dataset.parse_args(words))
    return is_wrong, json.loads((out / "report.json").read_text()), out / "report.html"


class Page(HTMLParser):
    """The elements of a page: names, attributes and text; all are closed."""

    VOID = {"meta", "link", "img", "br"}

    def __init__(self, path):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(path.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_nothing_is_wrong(run, capsys):
    is_wrong, report, page = check(
        run, {"id": "a", "pixels": noise(1), "objects": [CAT, (*DOG, 1)]}, {"id": "b"}
    )
    assert not is_wrong and report["findings"] == []
    of_train = report["datasets"]["own_train"]
    assert of_train["images"] == 2 and of_train["images without objects"] == 1
    assert of_train["objects"] == 2 and of_train["ignored objects"] == 1
    assert of_train["classes"] == {"cat": 1, "dog": 1}
    assert of_train["sizes in training"] == {"S": 0, "M": 1, "L": 0}  # 28 x 1.2: 34 pixels
    assert "Nothing is wrong" in capsys.readouterr().out and "Nothing is wrong" in Page(page).text


FAULTS = {
    "degenerate box": {"objects": [CAT, ("cat", (9, 9, 9, 9))]},
    "box outside the image": {"objects": [CAT, ("cat", (9, 9, 99, 20))]},
    "unknown class": {"objects": [CAT, ("cow", (9, 9, 19, 20))]},
    "duplicate box": {"objects": [CAT, CAT, DOG, ("cat", DOG[1])]},
    "wrong size": {"xml_size": (61, 40)},
    "broken XML": {"xml": "<annotation>"},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_found_and_can_be_accepted(run, kind):
    images = {"id": "a", "objects": [DOG]}, {"id": "b", "pixels": noise(2), **FAULTS[kind]}
    is_wrong, report, _ = check(run, *images)
    assert is_wrong and report["counts"] == {kind: 1}
    (finding,) = report["findings"]
    assert finding["dataset"] == "own_train" and "b." in finding["message"]
    shutil.rmtree(run.folder / "checked")
    assert not check(run, *images, flags=["--accept", kind])[0]


def test_unreadable_images(run):
    good = {"id": "a", "objects": [CAT]}
    check(run, good, {"id": "b", "pixels": noise(3), "objects": [CAT]}, {"id": "c"})
    folder = run.folder / "checked" / "JPEGImages"
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:-40])  # the header is whole
    (folder / "c.jpg").write_bytes(POSTSCRIPT)
    is_wrong, report, page = check_run(run)
    assert is_wrong and report["counts"] == {"unreadable image": 2}
    assert "(unreadable)" in Page(page).text


def test_near_duplicates_within_and_across_splits(run):
    splits = {"train": ["a", "b", "c"], "test": ["d", "e"]}
    images = [
        {"id": "a", "pixels": noise(1), "objects": [CAT]},
        {"id": "b", "pixels": noise(2)},
        {"id": "c", "pixels": np.clip(noise(1) + 3.0, 0, 255).astype(np.uint8)},
        {"id": "d", "pixels": noise(2)},
        {"id": "e", "pixels": noise(4)},
    ]
    flags = ["--dataset", "own_train", "--dataset", "own_test"]
    _, report, page = check(run, *images, splits=splits, flags=flags)
    found = {f["kind"]: (f["image"][-5:], f["other"][-5:]) for f in report["findings"]}
    assert found == {
        "near-duplicate image": ("c.jpg", "a.jpg"),
        "near-duplicate across splits": ("d.jpg", "b.jpg"),
    }
    assert len(report["findings"]) == 2


def test_distances_of_hashes():
    hashes = np.zeros((4, 64), bool)
    hashes[1, :4] = True
    hashes[2, 10:15] = True  # 5 bits from the first
    hashes[3, :5] = True  # 1 bit from the second
    tasks = [Task("x", {"file_name": name}, 0) for name in "abcd"]
    found = [(f.image, f.other) for f in near_duplicates(tasks, hashes)]
    assert found == [("b", "a"), ("d", "b")]
    assert near_duplicates([], hashes[:0]) == []


def test_a_large_box_is_one_only_in_a_class_of_small_ones():
    def task(name, *boxes):
        objects = [{"bbox": box, "bbox_mode": 0, "category_id": c} for c, box in boxes]
        return Task("x", {"file_name": name, "width": 10, "height": 10, "annotations": objects}, 2)

    small, whole = [0, 0, 2, 2], [0, 0, 10, 10]
    tasks = [task("a", (0, small), (0, small), (1, whole)), task("b", (0, whole), (1, whole))]
    (finding,) = large_boxes(tasks, ["cat", "dog"])
    assert finding.image == "b" and finding.boxes == (tuple(whole),) and "cat" in finding.message


def test_records_of_readers_that_check_nothing(tmp_path):
    """Such as those of Detectron2's own COCO sets."""
    path = str(tmp_path / "a.png")
    Image.new("RGB", (60, 40)).save(path)
    boxes = [[5, 5, 0, 9], [50, 5, 20, 9], [float("nan"), 5, 20, 9], [1, 1, 9, 9]]  # x, y, w, h
    objects = [{"bbox": box, "bbox_mode": 1, "category_id": i} for i, box in enumerate(boxes)]
    record = {"file_name": path, "width": 60, "height": 41, "annotations": objects}
    kinds = [finding.kind for finding in inspect_image(Task("x", record, 3)).findings]
    assert kinds == [
        *("wrong size", "degenerate box", "box outside the image", "degenerate box"),
        "unknown class",
    ]


@pytest.mark.parametrize("masks", [False, True])
def test_faults_of_coco(run, masks):
    root = write_voc_folder(run.folder / "voc", [{"id": "a", "objects": [CAT, DOG]}])
    path, images = to_coco(read_voc(root, "train", ["cat", "dog"]), ["cat", "dog"], run.folder)
    content = json.loads((run.folder / "annotations.json").read_text())
    content["annotations"][0]["bbox"][2] = 0
    (run.folder / "annotations.json").write_text(json.dumps(content))
    run.options["DATASETS.OWN"] = f"[['mine', '{path}', '{images}']]"
    run.options["MODEL.ROI_HEADS.NUM_CLASSES"] = "2"
    run.options["MODEL.MASK_ON"] = str(masks)
    is_wrong, report, page = check_run(run, "--dataset", "mine")
    expected = ["degenerate box", "missing shape"][: 1 + masks]
    assert is_wrong and report["counts"] == dict.fromkeys(expected, 1)
    assert report["findings"][0]["image"].endswith("a.jpg")
    assert report["datasets"]["mine"]["classes"] == {"cat": 0, "dog": 1}


def test_faults_of_yolo(run):
    images = {"id": "a", "objects": [CAT, DOG]}, {"id": "b", "pixels": noise(6), "objects": [CAT]}
    records = read_voc(write_voc_folder(run.folder / "voc", images), "train", ["cat", "dog"])
    (path,) = to_yolo(records, ["cat", "dog"], run.folder / "yolo")
    label = run.folder / "yolo" / "labels" / "train" / "a.txt"
    label.write_text(label.read_text() + "\n7 0.5 0.5 0.2 0.2\n1 0.5 0.5 0 0.2")
    run.options["DATASETS.OWN"] = f"[['mine', '{path}']]"
    run.options["MODEL.ROI_HEADS.NUM_CLASSES"] = "2"
    is_wrong, report, _ = check_run(run, "--dataset", "mine_train")
    assert is_wrong and report["counts"] == {"unknown class": 1, "degenerate box": 1}
    assert "a.txt: line 3" in report["findings"][0]["message"]
    assert report["datasets"]["mine_train"]["classes"] == {"cat": 2, "dog": 1}


def hostile_page(run):
    return check(run, {"id": HOSTILE, "pixels": noise(5), "objects": [CAT, CAT, DOG]})[2]


def test_the_page_is_whole_and_loads_nothing(run):
    page = Page(hostile_page(run))
    assert f"JPEGImages/{HOSTILE}.jpg: objects 0 and 1" in page.text
    tags = [tag for tag, _ in page.elements]
    assert not {"img", "link", "iframe"} & set(tags) and tags.count("script") == 1
    assert tags.count("svg") == tags.count("image") == 3  # the fault, before and after
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "data:").startswith("data:") and "src" not in attributes
    looks = [attributes["class"] for tag, attributes in page.elements if tag == "rect"]
    assert looks.count("fault") == 2


def test_the_pages_size_is_bounded(run):
    pixels = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    images = [{"id": str(i), "pixels": pixels, "objects": [CAT, CAT] * 20} for i in range(40)]
    is_wrong, report, page = check(run, *images)
    assert report["counts"]["near-duplicate image"] == 39
    assert page.stat().st_size < 10e6


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_in_a_browser(run, browser, width):
    with opened(browser, hostile_page(run), width) as page:
        page.locator("svg.zoomable").first.click()
        assert HOSTILE in page.locator("dialog[open] p").inner_text()


def test_bccd_has_two_degenerate_boxes(run, bccd_root, monkeypatch):
    monkeypatch.setenv("BCCD_ROOT", bccd_root)
    run.config = ROOT / "configs" / "bccd_rpn.yaml"
    run.options = {}
    _, report, _ = check_run(run)
    images = [f["image"] for f in report["findings"] if f["kind"] == "degenerate box"]
    assert [image[-9:] for image in images] == ["00338.jpg", "00343.jpg"]


@pytest.mark.parametrize(
    "flags, code", [([], 0), (["--dataset", "none"], 2), (["--nothing"], 2), (["SEED", "x"], 2)]
)
def test_exit_codes(run, monkeypatch, flags, code):
    run.objects(("cat", (3, 3, 40, 40)))
    assert exit_code(run, monkeypatch, flags) == code


def test_exit_code_of_findings(run, monkeypatch):
    run.objects(("cat", (3, 3, 3, 3)))
    assert exit_code(run, monkeypatch, []) == 1


def test_exit_code_of_a_bug(run, monkeypatch, capsys):
    monkeypatch.setattr("nrpn_d2.data.inspection.inspection.inspect_datasets", None)
    assert exit_code(run, monkeypatch, []) == 2
    assert "TypeError: 'NoneType'" in capsys.readouterr().err


def exit_code(run, monkeypatch, flags):
    options = [word for pair in run.options.items() for word in pair]
    words = ["check_dataset.py", "--config-file", str(run.config), *options, *flags]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(ROOT / "tools" / "check_dataset.py"), run_name="__main__")
    return error.value.code
