"""Folders of runs, made up: of a training with an nRPN on images of two classes."""

import json
from pathlib import Path
from unittest import mock

import numpy as np
from detectron2.config import get_cfg
from PIL import Image

from nrpn_d2 import add_nrpn_config
from nrpn_d2.evaluation.mistakes import KINDS, THRESHOLDS
from nrpn_d2.evaluation.runs import write_run

HOSTILE = "<img src=x onerror=alert(1)>&\"'"
NAMES = ["cat", HOSTILE]
DATASET = "pets_test"


def write_run_folder(folder: Path, *, gain: float = 0, images: Path | None = None) -> Path:
    """Write what a run of 60 iterations has written; with ``gain``, its numbers are better.

    Args:
        images: the folder of the images, by default in the run's; made if it does not exist.
    """
    folder.mkdir(parents=True)
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.SOLVER.MAX_ITER, cfg.MODEL.NRPN.WARMUP_ITERS = 60, 20
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("pets_train",), (DATASET,)
    (folder / "config.yaml").write_text(cfg.dump())
    write_history(folder)
    write_evaluation(folder / "inference", gain, images or folder / HOSTILE)
    return folder


def write_history(folder: Path, iterations: int = 60, every: int = 5) -> None:
    rows = []
    for i in range(every - 1, iterations, every):
        row = {"iteration": i, "total_loss": 2 / (i + 1), "loss_rpn_cls": 1 / (i + 1), "lr": 0.1}
        row["nrpn/joint"], row["nrpn/false_positives"] = float(i >= 20), 100 - i
        if i >= 20:
            row["nrpn/believed"] = 0.5
        if i % 10 == 9:
            row.update({"bbox/AP50": i, "bbox/AP50-cat": i, "validation/rpn_cls": 2 / (i + 1)})
        rows.append(json.dumps(row))
    (folder / "metrics.json").write_text("\n".join(rows) + '\n{"iteration": 6')  # it was killed


def write_evaluation(folder: Path, gain: float, images: Path) -> None:
    images.mkdir(exist_ok=True)
    records = []
    for n in range(4):
        path = images / f"{n}.png"
        pixels = np.random.default_rng(n).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        # Image n has n wrong detections; two fewer with a gain
        wrong = [[5 * i, 5, 5 * i + 20, 30, 1, 0.9, 4] for i in range(max(n - 2 * bool(gain), 0))]
        found = [[10, 10, 40, 40, 0, 0.8, 0]]
        objects = [[10, 10, 40, 40, 0, 1], [50, 10, 70, 40, 1, 0]]
        records.append({"file_name": str(path), "objects": objects, "detections": wrong + found})
    rising = np.linspace(0, 1, 5)
    mistakes = dict.fromkeys(KINDS, 1.0) | {"background": 2.5, "missed": 0.25}
    mistakes.update({"threshold": 0.37, "precision": 80.0, "recall": 75.0, "F1": 77.4})
    mistakes.update({"recall-cat": 90.0, f"recall-{HOSTILE}": 50.0, "threshold-cat": 0.5})
    metrics = {
        "bbox": {"AP50": 60.0 + gain, "AP50-cat": 90.0, f"AP50-{HOSTILE}": 30.0 + 2 * gain},
        "box_proposals": {"AR": 50.0 + gain / 2, "R50": 95.0, "AR@50": 45.0, "AR-cat": 48.0},
        "proposal_errors": {
            "background>0.7": 3.5 - gain / 10,
            "hit@50": 5.0,
            "background@50": 90.0,
        },
        "mistakes": mistakes,
    }
    curves = {
        "recall": {
            "iou": rising,
            "recall_vs_iou": {"50": 1 - rising},
            "num_proposals": [1, 3, 10, 30, 100],
            "recall_vs_num": {"0.5": rising, "AR": np.append(rising[:4] / 2, np.nan)},
        },
        "errors": {"50": dict.fromkeys(("hit", "duplicate", "localisation", "background"), 25.0)},
        "false_positives": {"per_image": 10.0 ** np.arange(-2, 3), "recall": rising},
        "precision_recall": {"bbox": dict.fromkeys(NAMES, 1 - rising)},
        "mistakes": {
            "score": THRESHOLDS,
            **dict.fromkeys(("precision", "recall", "F1"), THRESHOLDS),
            "confusions": [[0, 0, 4], [1, 0, 3], [1, 2, 4], [2, 1, 6]],
            "images": 4,
            "objects": {"cat": 4, HOSTILE: 7},
        },
    }
    content = {"classes": NAMES, "kinds": KINDS, "threshold": 0.37, "images": records}
    with mock.patch("nrpn_d2.evaluation.runs.draw_runs"):  # which takes longer than all the rest
        write_run(str(folder), DATASET, metrics, curves, {"mistakes.json": content})
