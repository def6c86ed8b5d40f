"""Training runs of a second: the real Trainer, a small model, made-up images."""

import json
import os
import socket

import numpy as np
import torch
from small_models import small_cfg
from voc_folder import write_voc_folder

from nrpn_d2.data import register_voc
from nrpn_d2.engine.trainer import Trainer

OBJECTS = [("disk", (5, 6, 40, 50)), ("square", (50, 20, 90, 55)), ("disk", (60, 2, 80, 15), 1)]
CLASSES = ["disk", "square", "triangle"]


def write_images(folder, count=5):
    """A folder in VOC layout: textures, some wide and some high, the last one without objects."""
    rng = np.random.default_rng(0)
    images = []
    for n in range(count):
        high, wide = ((64, 96), (96, 64))[n % 3 == 2]
        pixels = rng.integers(0, 256, (high // 8, wide // 8, 3), dtype=np.uint8)
        objects = OBJECTS[:1] if wide < high else OBJECTS
        images.append(
            {
                "id": f"im{n}",
                "pixels": np.kron(pixels, np.ones((8, 8, 1), np.uint8)),
                "objects": objects if n < count - 1 else [],
                "suffix": ".png",
            }
        )
    return write_voc_folder(folder, images)


def training_cfg(folder, output, **overrides):
    """A config of 6 iterations on ``write_images(folder)``, with the warm-up's end in the middle.

    Keyword arguments: see ``small_cfg``.
    """
    for split in ("train", "test"):
        register_voc(f"small_{split}", str(folder), split, CLASSES)
    settings = {
        "OUTPUT_DIR": str(output),
        "DATASETS__TRAIN": ("small_train",),
        "DATASETS__TEST": (),
        "DATALOADER__NUM_WORKERS": 0,
        "DATALOADER__FILTER_EMPTY_ANNOTATIONS": False,
        "INPUT__MIN_SIZE_TRAIN": (48, 64),
        "INPUT__MIN_SIZE_TEST": 64,
        "MODEL__NRPN__FP_SELECT": "topk",
        "MODEL__NRPN__WARMUP_ITERS": 3,
        "MODEL__WEIGHTS": "",
        "SEED": 1,
        "SOLVER__IMS_PER_BATCH": 2,
        "SOLVER__BASE_LR": 0.02,
        "SOLVER__MAX_ITER": 6,
        "SOLVER__STEPS": (4,),
        "SOLVER__WARMUP_ITERS": 2,
        "SOLVER__CHECKPOINT_PERIOD": 2,
        "TEST__EVAL_PERIOD": 0,
        **overrides,
    }
    os.makedirs(output, exist_ok=True)
    return small_cfg(**settings)


def train(cfg, resume=True, trainer=Trainer):
    """Train to the end, and return the trainer."""
    trainer = trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def assert_same_state(one, other, path=""):
    """Two checkpoints, or parts of them, are equal to the bit; their configs may differ."""
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one.keys() - {"config"}:
            assert_same_state(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for n, pair in enumerate(zip(one, other)):
            assert_same_state(*pair, f"{path}/{n}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def final_state(output):
    return torch.load(os.path.join(output, "model_final.pth"), weights_only=True)


def losses(output):
    """Iteration -> line of metrics.json, where it has losses."""
    with open(os.path.join(output, "metrics.json")) as f:
        return {line["iteration"]: line for line in map(json.loads, f) if "total_loss" in line}


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]
