"""Hints on keys that do not fit the data."""

import re

import numpy as np
import pytest
from small_models import small_cfg

from nrpn_d2.data.anchors.reach import AnchorLevel
from nrpn_d2.data.hints import data_hints

SQUARES = [AnchorLevel(8, np.array([[-16.0, -16, 16, 16]]))]


def hints(side=32, image=96, **options):
    """Of one image with one square object, 10 of its kind; training sees a short side of 96."""
    options = {"SOLVER__MAX_ITER": 100, "SOLVER__WARMUP_ITERS": 10, **options}
    cfg = small_cfg(INPUT__MIN_SIZE_TRAIN=(96,), SOLVER__IMS_PER_BATCH=2, **options)
    annotation = {"bbox": [0, 0, side, side], "bbox_mode": 0, "category_id": 0}
    record = {"width": image, "height": image, "annotations": [annotation]}
    return list(data_hints(cfg, [record], 10, SQUARES))


def test_nothing_to_say():
    assert hints() == hints(side=640, image=1920) == hints(SOLVER__MAX_ITER=11) == []


@pytest.mark.parametrize(
    "words, change",
    [
        ("MAX_ITER 4 is less than one epoch, 5 iterations", {"SOLVER__MAX_ITER": 4}),
        ("the learning rate never reaches BASE_LR", {"SOLVER__WARMUP_ITERS": 100}),
        ("No anchor reaches an IoU of 0.5 with 100 % of the objects", {"side": 20}),
        ("shrunk from 960 to 96 pixels, where 100 % .* 12 pixels", {"side": 100, "image": 960}),
    ],
)
def test_a_key_that_does_not_fit(words, change):
    change = {"SOLVER__WARMUP_ITERS": 1, **change} if "SOLVER__MAX_ITER" in change else change
    assert any(re.search(words, hint) for hint in hints(**change))
