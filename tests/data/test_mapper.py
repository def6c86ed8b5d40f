"""Records -> model input."""

import copy
import os

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.transforms import Augmentation
from detectron2.structures import BoxMode
from small_models import small_cfg
from voc_folder import write_voc_folder

from nrpn_d2.data import DatasetError, VOCDatasetMapper, read_voc

CAT = ("cat", (1, 1, 20, 20))
DIFFICULT_DOG = ("dog", (31, 11, 50, 30), 1)


def mapper(is_train, cls=VOCDatasetMapper):
    return cls(is_train, augmentations=[], image_format="BGR")


def records(tmp_path, *objects):
    root = write_voc_folder(tmp_path, [{"id": "a", "objects": objects}])
    return read_voc(root, "train", ["cat", "dog"])


def test_difficult_objects_are_boxes_to_ignore_in_training(tmp_path):
    (record,) = records(tmp_path, CAT, DIFFICULT_DOG, ("dog", (1, 1, 9, 9)))
    before = copy.deepcopy(record)
    instances = mapper(True)(record)["instances"]
    assert instances.gt_classes.tolist() == [0, 1]
    assert instances.gt_boxes.tensor.tolist() == [[0, 0, 20, 20], [0, 0, 9, 9]]
    assert instances.ignored_boxes.tensor.tolist() == [[30, 10, 50, 30]]
    assert record == before


def test_boxes_to_ignore_move_with_the_image(tmp_path):
    (record,) = records(tmp_path, CAT, DIFFICULT_DOG)
    twice_and_flipped = [T.Resize((80, 120)), T.RandomFlip(1.0)]
    mapped = VOCDatasetMapper(True, augmentations=twice_and_flipped, image_format="BGR")(record)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[80, 0, 120, 40]]
    assert mapped["instances"].ignored_boxes.tensor.tolist() == [[20, 20, 60, 60]]


def test_proposals_of_a_file_on_boxes_to_ignore_are_left_out(tmp_path):
    """In training, where ROI heads would call them background."""
    (record,) = records(tmp_path, CAT, DIFFICULT_DOG)
    on_the_dog, elsewhere = [31, 11, 50, 30], [2, 20, 20, 38]
    boxes = np.array([on_the_dog, CAT[1], elsewhere], np.float32)
    record["proposal_boxes"] = boxes
    record["proposal_objectness_logits"] = np.array([2, 1, 0], np.float32)
    record["proposal_bbox_mode"] = BoxMode.XYXY_ABS
    cfg = small_cfg(MODEL__LOAD_PROPOSALS=True, INPUT__MIN_SIZE_TRAIN=(0,), INPUT__MIN_SIZE_TEST=0)
    cfg.INPUT.RANDOM_FLIP = "none"
    for is_train, kept in ((True, [1, 2]), (False, [0, 1, 2])):
        proposals = VOCDatasetMapper(cfg, is_train)(record)["proposals"]
        assert proposals.proposal_boxes.tensor.tolist() == boxes[kept].tolist()


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_crowds_with_masks(mask_format, tmp_path):
    """COCO gives a crowd as RLE, which no list of polygons can hold."""
    (record,) = records(tmp_path, CAT, ("dog", (31, 11, 50, 30)))
    cat, crowd = record["annotations"]
    cat["segmentation"] = [[0, 0, 20, 0, 20, 20]]
    crowd.update(iscrowd=1, segmentation={"size": [40, 60], "counts": [0, 2400]})
    instances = VOCDatasetMapper(
        True,
        augmentations=[],
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format=mask_format,
    )(record)["instances"]
    assert instances.gt_classes.tolist() == [0] and len(instances.gt_masks) == 1
    assert instances.ignored_boxes.tensor.tolist() == [[30, 10, 50, 30]]


def test_without_difficult_objects_it_is_the_stock_mapper(tmp_path):
    (record,) = records(tmp_path, CAT)
    ours, stock = mapper(True)(record), mapper(True, DatasetMapper)(record)
    assert torch.equal(ours["image"], stock["image"])
    assert ours["instances"].get_fields().keys() == stock["instances"].get_fields().keys()
    assert torch.equal(ours["instances"].gt_classes, stock["instances"].gt_classes)


def test_inference_and_records_without_annotations(tmp_path):
    (record,) = records(tmp_path, DIFFICULT_DOG)
    assert "instances" not in mapper(False)(record)
    del record["annotations"]
    assert mapper(True)(record)["image"].shape == (3, 40, 60)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_image_is_named(tmp_path, suffix):
    root = write_voc_folder(tmp_path, [{"id": "a", "size": (200, 200), "suffix": suffix}])
    path = os.path.join(root, "JPEGImages", "a" + suffix)
    os.truncate(path, os.path.getsize(path) // 2)
    (record,) = read_voc(root, "train", ["cat"])
    with pytest.raises(DatasetError, match=f"a{suffix}: the image cannot be decoded.*replace"):
        mapper(True)(record)


def test_the_error_of_an_augmentation_is_not_that_of_the_image(tmp_path):
    class Mine(Augmentation):
        def get_transform(self, image):
            raise ValueError("of mine")

    (record,) = records(tmp_path, CAT)
    with pytest.raises(ValueError, match="^of mine$") as error:
        VOCDatasetMapper(True, augmentations=[Mine()], image_format="BGR")(record)
    assert type(error.value) is ValueError


def test_a_strip_is_named(tmp_path):
    root = write_voc_folder(tmp_path, [{"id": "a", "size": (20000, 2)}])
    (record,) = read_voc(root, "train", ["cat"])
    with pytest.raises(
        DatasetError, match="a.jpg: the image of 20000 x 2 pixels cannot be resized"
    ):
        VOCDatasetMapper(get_cfg(), False)(record)
