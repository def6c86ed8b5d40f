#!/usr/bin/env python
"""Do other ROI heads work on data with difficult objects? Cascade and Mask R-CNN on `shapes`.

    python benchmarks/other_heads.py                     # 500 iterations each
    python benchmarks/other_heads.py --iterations 8 --images 8

Each one is trained and evaluated; resumed from the checkpoint in the middle, which has to give the
same weights to the bit; and exported to ONNX, which has to give the same outputs on test images.
The masks to learn are the boxes of the objects. The exit code is 1 if anything fails.
"""

import argparse
import json
import os
import shutil
import tempfile
import time

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from nrpn_d2.data import register_datasets
from nrpn_d2.deploy.graph import InferenceGraph, check_parity, load_exported
from nrpn_d2.deploy.predictor import Predictor
from nrpn_d2.deploy.sources import read_image
from nrpn_d2.engine.defaults import build_cfg
from nrpn_d2.engine.trainer import Trainer

CONFIG = os.path.join(os.path.dirname(__file__), "..", "configs", "shapes_nrpn.yaml")
HEADS = {
    "Cascade R-CNN": [
        *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
        *("MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.5]),
        *("MODEL.ROI_HEADS.IOU_LABELS", [0, 1]),
    ],
    "Mask R-CNN": [
        *("MODEL.MASK_ON", True),
        *("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"),
        *("MODEL.ROI_MASK_HEAD.NUM_CONV", 1),
        *("MODEL.ROI_MASK_HEAD.CONV_DIM", 16),
    ],
}
SMALL = [
    *("MODEL.VGG.DEPTHS", [1, 1, 1, 1]),
    *("MODEL.VGG.WIDTHS", [32, 32, 32, 32]),
    *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"),
    *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV2"),
    *("MODEL.ROI_BOX_HEAD.NUM_FC", 1),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 64),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 300),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 100),
    *("MODEL.NRPN.FP_SELECT", "topk"),
    *("MODEL.DEVICE", "cpu"),
    *("INPUT.MIN_SIZE_TRAIN", (96,)),
    *("INPUT.MIN_SIZE_TEST", 96),
    *("SOLVER.IMS_PER_BATCH", 2),
    *("DATALOADER.NUM_WORKERS", 0),
    *("TEST.EVAL_PERIOD", 0),
    *("SEED", 1),
]


def register_masks(split: str, count: int) -> str:
    """Register `shapes` with its boxes as masks, those images first that have difficult objects."""

    def load() -> list[dict]:
        records = [dict(record) for record in DatasetCatalog.get(f"shapes_{split}")]
        records.sort(key=lambda r: -sum(a["difficult"] for a in r["annotations"]))
        for record in records[:count]:
            record["annotations"] = [
                {**a, "segmentation": [_corners(*a["bbox"])]} for a in record["annotations"]
            ]
        return records[:count]

    name = f"shapes_masks_{split}"
    DatasetCatalog.register(name, load)
    metadata = MetadataCatalog.get(f"shapes_{split}").as_dict()
    MetadataCatalog.get(name).set(**{**metadata, "name": name})
    return name


def _corners(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def train(cfg: CfgNode) -> Trainer:
    """Train to the end, from the last checkpoint if there is one."""
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    return trainer


def resumed_weights(cfg: CfgNode, middle: int) -> dict[str, torch.Tensor]:
    """Return the weights of a run that goes on from the checkpoint in the middle of another one."""
    cfg = cfg.clone()
    cfg.defrost()
    before, cfg.OUTPUT_DIR = cfg.OUTPUT_DIR, os.path.join(cfg.OUTPUT_DIR, "resumed")
    os.makedirs(cfg.OUTPUT_DIR)
    name = f"model_{middle - 1:07d}.pth"
    shutil.copy(os.path.join(before, name), cfg.OUTPUT_DIR)
    with open(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint"), "w") as f:
        f.write(name)
    trainer = train(cfg)
    assert trainer.start_iter == middle
    return trainer.model.state_dict()


def check(head: str, folder: str, iterations: int, datasets: dict[str, str]) -> list[str | float]:
    """Return a row of the table.

    Raises:
        ValueError: if resuming or the export gives something else.
    """
    opts = [*("DATASETS.TRAIN", (datasets["train"],)), *("DATASETS.TEST", (datasets["test"],))]
    opts += [*("SOLVER.MAX_ITER", iterations), *("SOLVER.STEPS", (iterations * 4 // 5,))]
    opts += [*("SOLVER.CHECKPOINT_PERIOD", iterations // 2), *("OUTPUT_DIR", folder)]
    opts += [*("MODEL.NRPN.WARMUP_ITERS", iterations // 4)]
    cfg = build_cfg(CONFIG, [*SMALL, *HEADS[head], *opts])
    start = time.perf_counter()
    trainer = train(cfg)
    seconds = time.perf_counter() - start
    weights = trainer.model.state_dict()
    for name, value in resumed_weights(cfg, iterations // 2).items():
        if not torch.equal(value, weights[name]):
            raise ValueError(f"{head}: {name} is another one after resuming")
    predictor = Predictor(cfg, trainer.model.eval())
    paths = [record["file_name"] for record in DatasetCatalog.get(datasets["test"])[:4]]
    images = [predictor.inputs_of_rgb(read_image(path))["image"].float() for path in paths]
    graph, path = InferenceGraph(trainer.model, images[0]), os.path.join(folder, "model.onnx")
    graph.to_onnx(path)
    parity = check_parity(graph, load_exported(path, graph.names), images)
    with open(os.path.join(folder, "metrics.json")) as f:
        losses = [line["total_loss"] for line in map(json.loads, f) if "total_loss" in line]
    results = trainer._last_eval_results
    return [head, seconds, losses[0], losses[-1], results["bbox"]["AP50"], "equal", parity[0]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--images", type=int, default=200, help="of each split (default: 200)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    register_datasets()
    datasets = {split: register_masks(split, args.images) for split in ("train", "test")}
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            check(head, os.path.join(folder, head), args.iterations, datasets) for head in HEADS
        ]
    headers = ["heads", "seconds", "first loss", "last loss", "AP50", "resumed", "ONNX"]
    print(tabulate(rows, headers, floatfmt=".1f"))


if __name__ == "__main__":
    main()
