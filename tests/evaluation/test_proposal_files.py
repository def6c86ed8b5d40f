import json
import pickle

import evaluate_proposals
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.data.build import load_proposals_into_dataset
from detectron2.structures import BoxMode
from registered_dataset import registered

from nrpn_d2.data.proposal_files import (
    Proposals,
    assign_proposals,
    load_proposals,
    save_proposals,
)
from nrpn_d2.evaluation.runs import read_run

BOXES = np.array([[10, 20, 40.5, 60], [0, 0, 400, 300]], np.float32)


def some_proposals():
    none = Proposals(np.empty((0, 4), np.float32), np.empty(0, np.float32))
    return {"0": Proposals(BOXES, np.array([2.5, -1.25], np.float32)), "1": none}


def assert_equal(loaded, expected):
    assert list(loaded) == list(expected)
    for image_id in expected:
        np.testing.assert_array_equal(loaded[image_id].boxes, expected[image_id].boxes)
        np.testing.assert_allclose(loaded[image_id].logits, expected[image_id].logits, rtol=1e-6)


def evaluate(*arguments):
    evaluate_proposals.main(evaluate_proposals.parse_args(list(map(str, arguments))))


def dump(path, **content):
    path.write_bytes(pickle.dumps(content))
    return str(path)


def dump_json(path, *rows):
    path.write_text(json.dumps([dict(zip(("image_id", "bbox", "score"), row)) for row in rows]))
    return str(path)


def test_detectron2_loads_what_was_saved(tmp_path):
    path = str(tmp_path / "new" / "rpn.pkl")
    save_proposals(path, some_proposals())
    assert_equal(load_proposals(path), some_proposals())
    with registered([[(BOXES[0], 0)], []], ["ring"]) as name:
        loaded = load_proposals_into_dataset(DatasetCatalog.get(name), path)
    for record, expected in zip(loaded, some_proposals().values()):
        np.testing.assert_array_equal(record["proposal_boxes"], expected.boxes)
        np.testing.assert_array_equal(record["proposal_objectness_logits"], expected.logits)
        assert record["proposal_bbox_mode"].name == "XYXY_ABS"


def test_coco_json(tmp_path):
    path = str(tmp_path / "rpn.json")
    save_proposals(path, some_proposals())
    first = json.loads((tmp_path / "rpn.json").read_text())[0]
    assert first["bbox"] == [10, 20, 30.5, 40]
    assert first["score"] == pytest.approx(1 / (1 + np.exp(-2.5)))
    assert_equal(load_proposals(path), {"0": some_proposals()["0"]})


def test_scores_that_are_no_probabilities_are_logits(tmp_path):
    path = dump_json(tmp_path / "x.json", (1, [0, 0, 5, 5], 0.5), (1, [0, 0, 6, 6], -1))
    assert load_proposals(path)[1].logits.tolist() == [0.5, -1]


def test_certain_scores_are_finite(tmp_path):
    path = dump_json(tmp_path / "x.json", (1, [0, 0, 5, 5], 0.0), (1, [0, 0, 6, 6], 1))
    logits = load_proposals(path)[1].logits
    assert np.isfinite(logits).all() and logits[0] > 30 and logits[1] < -30


@pytest.mark.parametrize("mode", [1, BoxMode.XYWH_ABS])  # x, y, width, height
def test_order_modes_and_old_names(tmp_path, mode):
    path = dump(
        tmp_path / "old.pkl",
        indexes=np.array([7]),
        boxes=[np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])],
        scores=[np.array([0.25, 0.5])],
        bbox_mode=mode,
    )
    loaded = load_proposals(path)
    assert repr(list(loaded)) == "[7]"
    assert loaded[7].boxes.tolist() == [[5, 6, 12, 14], [1, 2, 4, 6]]
    assert loaded[7].logits.tolist() == [0.5, 0.25]


ONE = dict(ids=["a"], boxes=[np.ones((1, 4))], objectness_logits=[np.ones(1)])


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(boxes=[np.array([[0, 0, np.nan, 1]])]), "image 'a': box 0 .*NaN"),
        (dict(boxes=[np.array([[0, 0, 1, np.inf]])]), "image 'a': box 0 .*infinity"),
        (dict(boxes=[np.array([[5, 0, 4, 1]])]), "image 'a': box 0 .*negative"),
        (dict(boxes=[np.ones((1, 5))]), r"image 'a': expected boxes .*\(1, 5\)"),
        (dict(boxes=[np.ones((0, 4))], objectness_logits=[np.ones(0)]), "has no boxes at all"),
        (dict(ids=[], boxes=[], objectness_logits=[]), "has no boxes at all"),
        (dict(ids=["a", "b"]), "ids, boxes and scores are of 2, 1 and 1 images"),
        ({key: 2 * value for key, value in ONE.items()}, "image 'a' occurs twice"),
        (dict(bbox_mode=4), "bbox_mode XYWHA_ABS is not supported"),
        (dict(ids=3), "not a proposal file"),
    ],
)
def test_broken_pickles(tmp_path, change, message):
    with pytest.raises(ValueError, match=f"x.pkl.*{message}"):
        load_proposals(dump(tmp_path / "x.pkl", **{**ONE, **change}))


def test_broken_json(tmp_path):
    path = tmp_path / "x.json"
    for row, message in (
        ((3, [0, 0, -1, 5], 0.5), "image 3: box 0 .*negative"),
        ((3, [0, 0, 1, float("nan")], 0.5), "NaN is not JSON"),
        ((3, [0, 0, 1], 0.5), "a bbox of image 3 is not 4 numbers"),
        ((3, [0, 0, 1, 1], "x"), "could not convert"),
        ((3, [0, 0, 1, 1]), "not a proposal file: KeyError: 'score'"),
    ):
        with pytest.raises(ValueError, match=f"x.json.*{message}"):
            load_proposals(dump_json(path, row))
    with pytest.raises(ValueError, match="x.json has no boxes at all"):
        load_proposals(dump_json(path))
    for text, message in (
        ('{"annotations": []}', "COCO's ground truth. Proposals are a list of"),
        ("{}", "another kind of JSON"),
        ("3", ""),
        ('["a"]', ""),
        ("no json", "invalid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"x.json(: | is not a proposal file).*{message}"):
            load_proposals(str(path))
    with pytest.raises(ValueError, match="x.npz: a proposal file ends in .pkl"):
        load_proposals("x.npz")
    with pytest.raises(ValueError, match="x.npz: a proposal file ends in .pkl"):
        save_proposals("x.npz", {})
    with pytest.raises(ValueError, match="x.json is not written: image 3: box 1 .*NaN"):
        save_proposals(str(path), {3: Proposals(BOXES, np.array([0, np.nan]))})


def test_files_of_another_dataset_are_refused():
    with registered([[], []], ["ring"], image_ids=[1, 2]) as name:
        some = Proposals(BOXES, None)
        assert list(assign_proposals({"2": some}, name, "f.pkl")) == [2]
        with pytest.raises(
            ValueError, match=f"f.pkl: 1 of its 2 images .*'x'.* '{name}' .2 images"
        ):
            assign_proposals({"2": some, "x": some}, name, "f.pkl")
        with pytest.raises(ValueError, match="f.pkl: image '2' occurs as text and as a number"):
            assign_proposals({2: some, "2": some}, name, "f.pkl")
        # The centre, (401, 5), is right of the image.
        beyond = Proposals(np.array([[396, 0, 406, 10]], np.float32), None)
        with pytest.raises(ValueError, match="f.pkl: image 2 is 400 x 300 .*another dataset"):
            assign_proposals({2: beyond}, name, "f.pkl")


def test_evaluates_a_file(tmp_path):
    # The first proposal finds the object exactly; image 1 is not in the file, its object is missed.
    proposals = {"0": some_proposals()["0"]}
    objects = [[(BOXES[0], 0)], [(BOXES[0], 0)]]
    save_proposals(str(tmp_path / "rpn.pkl"), proposals)
    with registered(objects, ["ring"]) as name:
        evaluate(tmp_path / "rpn.pkl", "--dataset", name, "--budgets", 1, 2)
    metrics = read_run(str(tmp_path / "rpn"))["metrics"]
    assert metrics["box_proposals"]["R70@1"] == 50
    # The other proposal, the whole image, has an IoU of 30.5 * 40 / 120000 and a score of 0.22.
    assert metrics["proposal_errors"]["background@2"] == 50
    assert metrics["proposal_errors"]["hit>0.7"] == 0.5  # one in two images
    assert (tmp_path / "rpn" / "recall.pdf").exists()


def test_ranks_are_no_scores(tmp_path):
    for ending in ("pkl", "json"):
        path = str(tmp_path / f"ranked.{ending}")
        save_proposals(path, {"0": Proposals(BOXES[::-1], None)})
        loaded = load_proposals(path)["0"]
        assert loaded.logits is None and loaded.boxes.tolist() == BOXES[::-1].tolist()
    with registered([[(BOXES[0], 0)]], ["ring"]) as name:
        evaluate(path, "--dataset", name, "--budgets", 1)
    run = read_run(str(tmp_path / "ranked"))
    errors = run["metrics"]["proposal_errors"]
    assert np.isnan(errors["background>0.7"]) and errors["background@1"] == 100
    assert errors["background"] == 50 and "false_positives" not in run["curves"]


def test_coco_format_dataset(tmp_path):
    coco = {
        "images": [{"id": 3, "file_name": "a.jpg", "height": 300, "width": 400}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 5, "bbox": [10, 20, 30.5, 40], "iscrowd": 0}
        ],
        "categories": [{"id": 5, "name": "ring"}],
    }
    (tmp_path / "objects.json").write_text(json.dumps(coco))
    save_proposals(str(tmp_path / "found.json"), {3: some_proposals()["0"]})
    arguments = [tmp_path / "found.json", "--json", tmp_path / "objects.json"]
    evaluate(*arguments, "--output", tmp_path / "out")
    run = read_run(str(tmp_path / "out"))
    assert run["dataset"] == "objects" and run["metrics"]["box_proposals"]["R90@50-ring"] == 100
    box = coco["annotations"][0]
    for content, message in (
        ({}, "categories"),
        ([], "list"),
        ({**coco, "categories": []}, "ValueError"),
        ({**coco, "annotations": [{**box, "category_id": 4}]}, "category_id=4"),
        ({**coco, "images": [{"id": 3}]}, "file_name"),
        ({**coco, "images": [3]}, "int"),
    ):
        (tmp_path / "objects.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"objects.json is not in COCO's format: .*{message}"):
            evaluate(*arguments)
    for command, message in (
        ([arguments[0], "--dataset", "shapes_tes"], "no such dataset; did you mean 'shapes_test'"),
        (arguments[:1], "DATASETS.TEST is"),
        ([*arguments, "--dataset", "x"], "exclude each other"),
        ([arguments[0], "--json", tmp_path / "missing.json"], "No such file .*missing.json"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            evaluate(*command)
