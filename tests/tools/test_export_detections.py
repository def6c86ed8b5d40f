"""tools/export_detections.py: files that COCO's tools read, and what FiftyOne is called with."""

import json
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import export_detections
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO
from small_detectors import detector_cfg, trained
from voc_folder import write_voc_folder

from nrpn_d2.checkpoint.trained_model import load_model, of_run
from nrpn_d2.data.coco import read_coco
from nrpn_d2.deploy.predictor import Predictor
from nrpn_d2.engine.defaults import build_cfg
from nrpn_d2.utils.boxes import box_iou

BOXES = [[10, 5, 40, 30], [50, 20, 30, 30], [2, 3, 20, 50]]  # x, y, width, height
CATEGORIES = [{"id": 3, "name": "red"}, {"id": 7, "name": "white"}, {"id": 8, "name": "plate"}]
WHAT = ("detections", "proposals", "false-positives")


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The folder of a training on a COCO file whose ids have gaps, and one below it of images."""
    folder = tmp_path_factory.mktemp("training")
    images = []
    for n, name in enumerate(("a.png", "below/b.png", "empty.png")):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 256, (64, 96, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        images.append({"id": 5 * n + 2, "file_name": name, "width": 96, "height": 64})
    objects = [
        {"id": 1, "image_id": 2, "category_id": 3, "bbox": BOXES[0], "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 8, "bbox": BOXES[1], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 7, "bbox": BOXES[2], "iscrowd": 0},
    ]
    content = {"images": images, "annotations": objects, "categories": CATEGORIES}
    (folder / "mine.json").write_text(json.dumps(content))
    cfg = detector_cfg("vgg", TEST__DETECTIONS_PER_IMAGE=7)
    cfg.DATASETS.OWN = [["mine", str(folder / "mine.json"), str(folder / "images")]]
    cfg.DATASETS.TEST, cfg.DATALOADER.NUM_WORKERS = ("mine",), 0
    trained(cfg, folder / "out")
    return folder


def export(training, what, *options):
    words = [training / "out", "--what", what, "--output", training / "export", *options]
    export_detections.main(export_detections.parse_args([*map(str, words)]))
    return training / "export"


def of_coco(boxes):
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


@pytest.mark.parametrize("what", WHAT)
def test_coco_reads_what_the_model_predicts(training, what, restored_catalogs, capsys):
    folder = export(training, what)
    truth = COCO(str(folder / "ground_truth.json"))
    results = truth.loadRes(str(folder / f"{what}_results.json"))
    config, weights = of_run(str(training / "out"))
    cfg = build_cfg(config, ["MODEL.WEIGHTS", weights])
    predictor = Predictor(cfg, load_model(cfg))
    for image_id, image in truth.imgs.items():
        pixels = np.array(Image.open(training / "images" / image["file_name"]))[:, :, ::-1]
        if what == "detections":
            (found,) = predictor.detect_batch([predictor.inputs(pixels)])
            boxes, scores = found.pred_boxes.tensor.numpy(), found.scores.numpy()
            ids = [CATEGORIES[n]["id"] for n in found.pred_classes]
        else:
            (found,) = predictor.propose_batch([predictor.inputs(pixels)])
            boxes = found.proposal_boxes.tensor.numpy()
            scores = found.objectness_logits.sigmoid().numpy()
            if what == "false-positives":
                objects = [a["bbox"] for a in truth.imgToAnns[image_id]]
                objects = np.array(objects, float).reshape(-1, 4)
                objects[:, 2:] += objects[:, :2]
                iou = box_iou(objects[:, None], boxes).max(axis=0, initial=0)
                x0, y0, x1, y1 = BOXES[1][:2] + [80, 50]  # the crowd of the first image
                inside = boxes.clip([x0, y0, x0, y0], [x1, y1, x1, y1])
                on_crowd = np.prod(inside[:, 2:] - inside[:, :2], axis=1) >= 0.5 * np.prod(
                    boxes[:, 2:] - boxes[:, :2], axis=1
                )
                wrong = (scores > 0.7) & (iou < 0.3) & ~(on_crowd & (image_id == 2))
                boxes, scores = boxes[wrong], scores[wrong]
            ids = [1] * len(boxes)
        rows = results.imgToAnns[image_id]
        assert len(rows) == len(boxes) > 0
        np.testing.assert_allclose([r["bbox"] for r in rows], of_coco(boxes), atol=1e-3)
        np.testing.assert_allclose([r["score"] for r in rows], scores, atol=1e-5)
        assert [r["category_id"] for r in rows] == ids
    assert str(training / "images") in capsys.readouterr().out  # where a viewer has to look


def test_a_run_may_be_named_by_a_number(training, monkeypatch, restored_catalogs):
    (training / "7").symlink_to("out")
    monkeypatch.chdir(training)
    export_detections.main(export_detections.parse_args(["7"]))
    assert (training / "out" / "export" / "ground_truth.json").exists()


def test_the_ground_truth_is_the_dataset(training, restored_catalogs):
    folder = export(training, "detections")
    images = str(training / "images")
    original = read_coco(str(training / "mine.json"), images)
    assert read_coco(str(folder / "ground_truth.json"), images) == original


def test_a_viewer_needs_no_other_file(training, restored_catalogs):
    folder = export(training, "false-positives")
    viewed = json.loads((folder / "false-positives.json").read_text())
    assert viewed["categories"] == [{"id": 1, "name": "false positive"}]
    rows = viewed["annotations"]
    assert [r["id"] for r in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert row["area"] == row["bbox"][2] * row["bbox"][3] and row["score"] > 0.7
    assert len({i["file_name"] for i in viewed["images"]}) == 3


def test_image_ids_that_are_names_become_numbers(training, tmp_path, restored_catalogs):
    root = write_voc_folder(tmp_path / "voc", [{"id": "x_1", "size": (96, 64)}, {"id": "0002"}])
    config = yaml.safe_load((training / "out/config.yaml").read_text())
    config["DATASETS"] |= {"OWN": [["voc", root]], "VOC_CLASSES": ["red", "white", "plate"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    weights = ["MODEL.WEIGHTS", str(training / "out/model_final.pth")]
    words = ["--config-file", str(tmp_path / "config.yaml"), "--dataset", "voc_test"]
    output = ["--output", str(tmp_path / "export")]
    export_detections.main(export_detections.parse_args([*words, *output, *weights]))
    truth = COCO(str(tmp_path / "export/ground_truth.json"))
    assert {i: x["file_name"] for i, x in truth.imgs.items()} == {1: "x_1.jpg", 2: "0002.jpg"}
    assert sorted(truth.cats) == [1, 2, 3]
    detections = truth.loadRes(str(tmp_path / "export/detections_results.json"))
    assert {row["category_id"] for row in detections.anns.values()} <= {1, 2, 3}


@pytest.mark.parametrize("exists", [False, True])
def test_fiftyone_gets_objects_once_and_predictions(
    training, exists, monkeypatch, restored_catalogs
):
    """The calls; that FiftyOne 1.22 does with them what is meant was tried by hand."""
    fiftyone, coco = MagicMock(), MagicMock()
    fiftyone.utils = SimpleNamespace(coco=coco)
    fiftyone.dataset_exists.return_value = exists
    modules = {"fiftyone": fiftyone, "fiftyone.utils": fiftyone.utils, "fiftyone.utils.coco": coco}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    folder = export(training, "false-positives", "--format", "fiftyone")
    assert fiftyone.Dataset.from_dir.called != exists
    if not exists:
        made = fiftyone.Dataset.from_dir.call_args.kwargs
        assert made["name"] == "mine" and made["data_path"] == str(training / "images")
        assert made["labels_path"] == str(folder / "ground_truth.json")
    (dataset, field, rows, categories), _ = coco.add_coco_labels.call_args
    made = fiftyone.load_dataset if exists else fiftyone.Dataset.from_dir
    assert dataset is made.return_value and field == "false_positives_out"
    assert rows == json.loads((folder / "false-positives.json").read_text())["annotations"]
    assert categories == [{"id": 1, "name": "false positive"}]


def test_what_cannot_be_exported(training, tmp_path, monkeypatch, restored_catalogs):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ValueError, match="FiftyOne is needed .*: pip install fiftyone$"):
        export(training, "detections", "--format", "fiftyone")
    with pytest.raises(ValueError, match="is not the OUTPUT_DIR of a training"):
        export_detections.main(export_detections.parse_args([str(tmp_path)]))
    with pytest.raises(ValueError, match="ProposalNetwork detects nothing"):
        export(training, "detections", "MODEL.META_ARCHITECTURE", "ProposalNetwork")
    with pytest.raises(SystemExit):
        export_detections.parse_args([])
