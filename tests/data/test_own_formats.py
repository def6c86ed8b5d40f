"""COCO and YOLO: what is read, under which names, and what the model takes from it."""

import json
import os

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from exports import to_coco, to_yolo
from PIL import Image
from pycocotools import mask as coco_mask
from small_models import small_cfg
from small_training import CLASSES, final_state, train, training_cfg, write_images

from nrpn_d2.data import (
    DatasetError,
    VOCDatasetMapper,
    check_datasets,
    read_voc,
    register_datasets,
    take_classes,
)
from nrpn_d2.data.coco import read_coco
from nrpn_d2.data.loader import build_train_loader
from nrpn_d2.evaluation.ground_truth import load_ground_truth
from nrpn_d2.modeling.ignored import ignored_boxes


@pytest.fixture
def records(tmp_path):
    return read_voc(write_images(tmp_path / "voc"), "train", CLASSES)


@pytest.fixture(autouse=True)
def restored(restored_catalogs):
    pass


def registered(*own, **options):
    cfg = small_cfg(DATASETS__OWN=[list(entry) for entry in own], **options)
    register_datasets(cfg)
    return cfg


def without_ids(records, difficult=True):
    plain = []
    for record in records:
        notes = [n for n in record["annotations"] if difficult or not n["difficult"]]
        plain.append({"width": record["width"], "height": record["height"], "annotations": notes})
    return plain


def test_three_formats_give_the_same(tmp_path, records):
    coco = to_coco(records, CLASSES, tmp_path / "coco")
    yolo = to_yolo(records, CLASSES, tmp_path / "yolo")
    registered(["mine", *coco], ["your", *yolo])
    assert without_ids(DatasetCatalog.get("mine")) == without_ids(records)
    assert without_ids(DatasetCatalog.get("your_train")) == without_ids(records, difficult=False)
    for name in ("mine", "your_train"):
        assert MetadataCatalog.get(name).thing_classes == CLASSES
        for record, original in zip(DatasetCatalog.get(name), records):
            assert os.path.basename(record["file_name"]) == os.path.basename(original["file_name"])
    assert "your_val" not in DatasetCatalog


def test_three_formats_train_to_the_same_weights(tmp_path, records):
    for record in records:
        record["annotations"] = [n for n in record["annotations"] if not n["difficult"]]
    states = []
    own = [["mine", *to_coco(records, CLASSES, tmp_path / "coco")]]
    own += [["your", *to_yolo(records, CLASSES, tmp_path / "yolo")]]
    DatasetCatalog.register("voc", lambda: records)
    MetadataCatalog.get("voc").thing_classes = CLASSES
    for name in ("voc", "mine", "your_train"):
        settings = {"SOLVER__MAX_ITER": 20, "SOLVER__CHECKPOINT_PERIOD": 100}
        settings |= {"DATASETS__OWN": own, "DATASETS__TRAIN": (name,)}
        cfg = training_cfg(tmp_path / "voc", tmp_path / name, **settings)
        register_datasets(cfg)
        train(cfg)
        states.append(final_state(tmp_path / name)["model"])
    for other in states[1:]:
        assert other.keys() == states[0].keys()
        assert all(torch.equal(other[key], states[0][key]) for key in other)


def test_masks_and_keypoints_as_detectron2_reads_them(tmp_path, records):
    path, root = to_coco(records[:1], CLASSES, tmp_path / "coco")
    content = json.load(open(path))
    width, height = records[0]["width"], records[0]["height"]
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[3:20, 5:30] = mask[30:33, 8:11] = 1
    packed = coco_mask.encode(mask)
    box = {"image_id": 100, "category_id": 3, "bbox": [5, 3, 25, 17], "iscrowd": 0}
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel("F"), prepend=1 - mask[0, 0])), append=0)
    runs[-1] = mask.size - runs[:-1].sum()
    content["categories"] = [{"id": 3, "name": "x", "keypoints": ["left_eye", "right_eye"]}]
    content["annotations"] = [
        {**box, "id": 1, "segmentation": [[5, 3, 30, 3, 30, 20.5]]},
        {**box, "id": 2, "segmentation": {**packed, "counts": packed["counts"].decode()}},
        {**box, "id": 3, "segmentation": {"size": [height, width], "counts": runs.tolist()}},
        {**box, "id": 4, "segmentation": [], "keypoints": [6, 4, 2, 0, 0, 0]},
    ]
    json.dump(content, open(path, "w"))
    (ours,) = read_coco(path, root)
    (theirs,) = load_coco_json(path, root, extra_annotation_keys=["keypoints"])
    for one, other in zip(ours["annotations"], theirs["annotations"]):
        for key in ("segmentation", "keypoints"):
            if key == "segmentation" and isinstance(one.get(key), dict):
                decoded = [coco_mask.decode(note[key]) for note in (one, other)]
                assert np.array_equal(*decoded) and np.array_equal(decoded[0], mask)
            elif key in one:
                assert one[key] == other[key]
    assert [
        sorted(note.keys() & {"segmentation", "keypoints"}) for note in ours["annotations"]
    ] == [*[["segmentation"]] * 3, ["keypoints"]]
    registered(["mine", path, root])
    assert MetadataCatalog.get("mine").keypoint_flip_map == [("left_eye", "right_eye")]


def test_the_exif_orientation_turns_boxes_of_coco(tmp_path, records):
    """As for VOC: sizes that the file has exchanged refer to the stored pixels."""
    path, root = to_coco(records[:1], CLASSES, tmp_path / "coco")
    content = json.load(open(path))
    stored = Image.new("RGB", (60, 40))
    exif = stored.getexif()
    exif[0x0112] = 6
    stored.save(f"{root}/im0.png", exif=exif)
    content["annotations"] = content["annotations"][:1]
    for size, box in (((60, 40), [40 - 12, 5, 40 - 2, 25]), ((40, 60), [5, 2, 25, 12])):
        content["images"][0] |= {"width": size[0], "height": size[1]}
        content["annotations"][0]["bbox"] = [5, 2, 20, 10]
        json.dump(content, open(path, "w"))
        (record,) = read_coco(path, root)
        assert (record["width"], record["height"]) == (40, 60)
        assert record["annotations"][0]["bbox"] == box


def test_several_datasets_in_one_run(tmp_path, records):
    own = ["a", *to_coco(records, CLASSES, tmp_path / "coco")]
    own = [own, ["b", *to_yolo(records, CLASSES, tmp_path / "yolo")], ["c", str(tmp_path / "voc")]]
    names = {"DATASETS__TRAIN": ("a", "b_train"), "DATASETS__TEST": ("c_test", "a")}
    cfg = registered(*own, DATASETS__VOC_CLASSES=CLASSES, **names)
    check_datasets(cfg)
    cfg.DATASETS.VOC_CLASSES = CLASSES[::-1]
    register_datasets(cfg)
    with pytest.raises(DatasetError, match="class 0 is 'disk' in 'a' and 'triangle' in 'c_test'"):
        check_datasets(cfg)


def test_the_number_of_classes_comes_from_the_data(tmp_path, records):
    own = ["a", *to_coco(records, CLASSES[:2], tmp_path / "coco")]
    cfg = registered(own, DATASETS__TRAIN=("a",), MODEL__ROI_HEADS__NUM_CLASSES=80)
    take_classes(cfg)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert cfg.DATASETS.VOC_CLASSES == CLASSES[:2]
    check_datasets(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    take_classes(cfg)
    with pytest.raises(DatasetError, match="NUM_CLASSES is 1, and 'a' has 2 classes; make"):
        check_datasets(cfg)


@pytest.mark.parametrize(
    "entry, message",
    [
        ("mine", r"give \[name, path\]"),
        (["mine"], r"give \[name, path\]"),
        (["mine", 3], r"give \[name, path\]"),
        (["mine", ""], r"give \[name, path\]"),
        (["mine", "/no/such"], "/no/such: there is no such folder.*'mine'.*.json, .yaml"),
        (["mine", "x.csv"], "x.csv: there is no such folder.*.json, .yaml"),
        (["mine", "x.json"], "x.json: cannot be read .no such file."),
        (["mine", "x.yaml"], "x.yaml: cannot be read .no such file."),
        (["mine", "{voc}"], "VOC_CLASSES is empty; 'mine' is in VOC layout"),
        (["mine", "{voc}", "x"], "'mine' has a third value"),
        (["mine", "$NO_SUCH/x.json"], "an environment variable"),
    ],
)
def test_bad_entries(tmp_path, entry, message):
    write_images(tmp_path)
    if isinstance(entry, list):
        entry = [part.format(voc=tmp_path) if isinstance(part, str) else part for part in entry]
    with pytest.raises(DatasetError, match=message):
        register_datasets(small_cfg(DATASETS__OWN=[entry]))


def test_two_of_one_name(tmp_path, records):
    own = [["a_train", *to_coco(records, CLASSES, tmp_path / "coco")]]
    own += [["a", *to_yolo(records, CLASSES, tmp_path / "yolo")]]
    with pytest.raises(DatasetError, match="'a_train' is already registered"):
        registered(*own)


def test_sets_that_detectron2_registers_work_as_ours(tmp_path, records):
    """Also their crowds: ignored in training and in evaluation, as difficult objects are."""
    path, root = to_coco(records, CLASSES, tmp_path / "coco")
    registered(["ours", path, root])
    register_coco_instances("theirs", {}, path, root)
    read = {}
    for name in ("ours", "theirs"):
        cfg = small_cfg(DATASETS__TRAIN=(name,), SEED=1, DATALOADER__NUM_WORKERS=0)
        batches = iter(build_train_loader(cfg, VOCDatasetMapper(cfg, is_train=True)))
        targets = [next(batches)[0]["instances"] for _ in range(8)]
        truth = load_ground_truth(name)
        assert truth.ignored.sum() == 3
        read[name] = [
            [sorted(t.gt_boxes.tensor.round().tolist()) for t in targets],
            [sorted(ignored_boxes(t).tensor.round().tolist()) for t in targets],
            truth.boxes.tolist(),
            truth.classes.tolist(),
            truth.ignored.tolist(),
        ]
    assert read["ours"] == read["theirs"]
    assert any(read["ours"][1])


def test_masks_and_keypoints_beside_a_crowd(tmp_path, records):
    """The crowd has none; another object without one is named."""
    path, root = to_coco(records[:1], CLASSES, tmp_path / "coco")
    content = json.load(open(path))
    for note in content["annotations"]:
        if not note["iscrowd"]:
            x, y, w, h = note["bbox"]
            shapes = {"segmentation": [[x, y, x + w, y, x, y + h]], "keypoints": [x, y, 2]}
            note |= shapes
    json.dump(content, open(path, "w"))
    keys = {"MODEL__MASK_ON": True, "MODEL__KEYPOINT_ON": True, "DATALOADER__NUM_WORKERS": 0}
    cfg = registered(["mine", path, root], DATASETS__TRAIN=("mine",), **keys)
    mapper = VOCDatasetMapper(
        True, augmentations=[], image_format="BGR", use_instance_mask=True, use_keypoint=True
    )
    targets = next(iter(build_train_loader(cfg, mapper)))[0]["instances"]
    assert len(targets) == len(targets.gt_masks) == len(targets.gt_keypoints) == 2
    assert len(ignored_boxes(targets)) == 1
    del content["annotations"][1]["keypoints"]
    json.dump(content, open(path, "w"))
    with pytest.raises(ValueError, match="KEYPOINT_ON is True, and object 1 of .*im0.png has no k"):
        build_train_loader(cfg, mapper)
