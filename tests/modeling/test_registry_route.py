"""The registry route: another project imports nrpn_d2 and changes one line of its config."""

import subprocess
import sys

PROJECT = """
import torch
import nrpn_d2
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_train_loader
from detectron2.engine import DefaultTrainer
from detectron2.structures import BoxMode
from PIL import Image

torch.set_num_threads(1)
Image.new("RGB", (96, 64), (90, 120, 150)).save("image.png")
box = dict(bbox=[10, 12, 60, 50], bbox_mode=BoxMode.XYXY_ABS, category_id=0)
record = dict(file_name="image.png", image_id=0, height=64, width=96, annotations=[box])
DatasetCatalog.register("mine", lambda: [record] * 4)

cfg = get_cfg()
nrpn_d2.add_nrpn_config(cfg)
cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
cfg.MODEL.BACKBONE.FREEZE_AT = 0
cfg.MODEL.RESNETS.DEPTH = 18
cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
cfg.MODEL.FPN.OUT_CHANNELS = 16
cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 1, 32
cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
cfg.INPUT.MIN_SIZE_TRAIN = (64,)
cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("mine",), ()
cfg.DATALOADER.NUM_WORKERS = 0
cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR = 2, 3, 1e-4
cfg.MODEL.NRPN.WARMUP_ITERS = 1
cfg.OUTPUT_DIR = "."
cfg.MODEL.PROPOSAL_GENERATOR.NAME = "HardNegativeRPN"  # the one line

trainer = DefaultTrainer(cfg)
trainer.resume_or_load(resume=False)
trainer.train()
assert trainer.storage.history("nrpn/joint").values() == [(0.0, 0), (1.0, 1), (1.0, 2)]
assert trainer.storage.history("loss_nrpn_cls").latest() > 0
print("trained", type(trainer.model.proposal_generator).__name__)
"""


def test_another_project(tmp_path):
    import nrpn_d2

    root = nrpn_d2.__path__[0].rsplit("/", 1)[0]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{PROJECT}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "trained HardNegativeRPN" in result.stdout
