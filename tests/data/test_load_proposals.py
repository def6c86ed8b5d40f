"""Proposals of a file, given to the records of a dataset."""

import pickle

import numpy as np
import pytest
from detectron2.data.build import load_proposals_into_dataset
from detectron2.structures import BoxMode
from registered_dataset import registered
from small_models import small_cfg

from nrpn_d2.data.loader import build_test_loader, build_train_loader
from nrpn_d2.data.proposal_files import add_proposals


def content(*ids, rng=None):
    rng = rng or np.random.default_rng(0)
    corners = [np.sort(rng.uniform(0, 50, (7, 2, 2)), axis=1).reshape(7, 4) for _ in ids]
    logits = [rng.normal(size=7).astype(np.float32) for _ in ids]
    return {
        "ids": list(ids),
        "boxes": [boxes.astype(np.float32) for boxes in corners],
        "objectness_logits": logits,
        "bbox_mode": BoxMode.XYXY_ABS.value,
    }


def write(path, data):
    path.write_bytes(pickle.dumps(data))
    return str(path)


def test_the_same_as_detectron2(tmp_path):
    path = write(tmp_path / "p.pkl", content("7", 3, "of another dataset"))
    ours = add_proposals([{"image_id": 7}, {"image_id": "3"}], path)
    theirs = load_proposals_into_dataset([{"image_id": 7}, {"image_id": "3"}], path)
    for one, other in zip(ours, theirs):
        assert one.keys() == other.keys() and one["image_id"] == other["image_id"]
        assert one["proposal_bbox_mode"] == other["proposal_bbox_mode"]
        for key in ("proposal_boxes", "proposal_objectness_logits"):
            assert np.array_equal(one[key], other[key])


def test_an_image_without_an_entry(tmp_path):
    path = write(tmp_path / "p.pkl", content("7"))
    with pytest.raises(ValueError, match="p.pkl: it has no entry for 1 of 2 images .*8"):
        add_proposals([{"image_id": 7}, {"image_id": 8}], path)


def test_each_dataset_gets_its_own_file(tmp_path):
    """Both datasets have an image "0"."""
    objects = [[((5, 5, 20, 20), 0)]]
    files = [
        write(tmp_path / f"{n}.pkl", content("0", rng=np.random.default_rng(n))) for n in (1, 2)
    ]
    with registered(objects, ["cat"]) as one, registered(objects, ["cat"]) as two:
        settings = {"MODEL__LOAD_PROPOSALS": True, "DATALOADER__NUM_WORKERS": 0}
        for key in ("TRAIN", "TEST"):
            settings[f"DATASETS__{key}"] = (one, two)
            settings[f"DATASETS__PROPOSAL_FILES_{key}"] = tuple(files)
        cfg = small_cfg(**settings)
        train = build_train_loader(cfg, lambda record: record)
        read = [record["proposal_boxes"][0, 0] for record in train._records]
        assert read[0] != read[1]
        for name, of_training in zip((one, two), read):
            tested = build_test_loader(cfg, name).dataset._dataset[0]
            assert tested["proposal_boxes"][0, 0] == of_training
        cfg.DATASETS.PROPOSAL_FILES_TEST = tuple(files[:1])
        with pytest.raises(ValueError, match="PROPOSAL_FILES_TEST has 1 files for 2 datasets"):
            build_test_loader(cfg, two)
