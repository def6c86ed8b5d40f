"""Records -> model input."""

import copy
import os

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data.transforms import Augmentation
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from voc_folder import write_voc_folder

from nrpn_d2.data import DatasetError, VOCDatasetMapper, read_voc

CAT = ("cat", (1, 1, 20, 20))
DIFFICULT_DOG = ("dog", (31, 11, 50, 30), 1)


def mapper(is_train, cls=VOCDatasetMapper):
    return cls(is_train, augmentations=[], image_format="BGR")


def records(tmp_path, *objects):
    root = write_voc_folder(tmp_path, [{"id": "a", "objects": objects}])
    return read_voc(root, "train", ["cat", "dog"])


def test_difficult_objects_are_marked_in_training(tmp_path):
    (record,) = records(tmp_path, CAT, DIFFICULT_DOG, ("dog", (1, 1, 9, 9)))
    before = copy.deepcopy(record)
    instances = mapper(True)(record)["instances"]
    assert instances.gt_classes.tolist() == [0, -1, 1]
    assert instances.gt_boxes.tensor.tolist() == [[0, 0, 20, 20], [30, 10, 50, 30], [0, 0, 9, 9]]
    assert record == before


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


def test_it_is_built_from_a_config(tmp_path):
    (record,) = records(tmp_path, DIFFICULT_DOG)
    assert VOCDatasetMapper(get_cfg(), True)(record)["instances"].gt_classes.tolist() == [-1]


def test_stock_roi_heads_sample_nothing_on_a_difficult_object(tmp_path):
    (record,) = records(tmp_path, CAT, DIFFICULT_DOG)
    targets = mapper(True)(record)["instances"]
    cfg = get_cfg()
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 1
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.5
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
    heads = StandardROIHeads(cfg, {"res4": ShapeSpec(channels=4, stride=16)})
    proposals = Instances((40, 60))
    # On the cat, twice on the difficult dog (IoU 1 and 18 * 20 / 400 = 0.9), on neither.
    boxes = [[0, 0, 20, 20], [30, 10, 50, 30], [30, 10, 48, 30], [0, 25, 15, 40]]
    proposals.proposal_boxes = Boxes(torch.tensor(boxes, dtype=torch.float))
    proposals.objectness_logits = torch.zeros(4)
    # Detectron2 appends the ground truth to the proposals; there is room for all of it.
    with EventStorage():
        (sampled,) = heads.label_and_sample_proposals([proposals], [targets])
    found = sorted(zip(sampled.proposal_boxes.tensor.tolist(), sampled.gt_classes.tolist()))
    assert found == [(boxes[0], 0), (boxes[0], 0), (boxes[3], 2)]
    # With its own class the same dog would have been sampled.
    targets.gt_classes = torch.tensor([0, 1])
    with EventStorage():
        (sampled,) = heads.label_and_sample_proposals([proposals], [targets])
    assert sorted(sampled.gt_classes.tolist()) == [0, 0, 1, 1, 1, 2]


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


def test_a_crowd_is_ignored_as_a_difficult_object(tmp_path):
    (record,) = records(tmp_path, CAT, DIFFICULT_DOG)
    expected = mapper(True)(record)["instances"].gt_classes.tolist()
    del record["annotations"][1]["difficult"]
    record["annotations"][1]["iscrowd"] = 1
    assert mapper(True)(record)["instances"].gt_classes.tolist() == expected
