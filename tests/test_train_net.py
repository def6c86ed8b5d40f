"""End to end: train, resume, evaluate, as a user does."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from small_models import small_cfg
from voc_folder import write_voc_folder

import train_net
from nrpn_d2.engine.trainer import scale_nrpn_warmup

ROOT = os.path.dirname(os.path.abspath(train_net.__file__))
SMALL = [
    *("MODEL.VGG.WIDTHS", "[32, 32, 32, 32]", "MODEL.VGG.DEPTHS", "[1, 1, 1, 1]"),
    *("MODEL.VGG.FC_DIM", "32", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
    *("SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "SEED", "1"),
    *("MODEL.NRPN.FP_SELECT", "topk", "MODEL.NRPN.WARMUP_ITERS", "3"),
]
OBJECTS = [("disk", (5, 6, 40, 50)), ("square", (50, 20, 90, 55)), ("disk", (60, 2, 80, 15), 1)]


@pytest.fixture
def own_folder(tmp_path):
    """Options that train a small model on a folder of one's own, with no code."""
    images = [{"id": f"im{i}", "size": (96, 64), "objects": OBJECTS} for i in range(3)]
    images.append({"id": "background", "size": (96, 64), "objects": []})
    root = write_voc_folder(tmp_path / "folder", images)
    data = ["DATASETS.VOC_NAME", "ours", "DATASETS.VOC_ROOT", root]
    data += ["DATASETS.VOC_CLASSES", "['disk', 'square', 'triangle']"]
    return data + ["DATASETS.TRAIN", "('ours_train',)", "DATASETS.TEST", "('ours_test',)"]


def run(config, output_dir, *arguments):
    """``python train_net.py --num-gpus 0 ...``, in this process."""
    flags = [a for a in arguments if a.startswith("--")]
    opts = [a for a in arguments if not a.startswith("--")]
    command = ["--config-file", f"{ROOT}/configs/{config}.yaml", "--num-gpus", "0", *flags]
    command += ["OUTPUT_DIR", str(output_dir), *opts]
    return train_net.main(train_net.parse_args(command))


def metrics(output_dir):
    with open(os.path.join(output_dir, "metrics.json")) as f:
        return {line["iteration"]: line for line in map(json.loads, f) if "total_loss" in line}


def test_train_resume_evaluate(own_folder, tmp_path):
    arguments = ["shapes_nrpn_overlap", tmp_path / "out", *SMALL, *own_folder]
    run(*arguments, "SOLVER.MAX_ITER", "2")
    assert metrics(tmp_path / "out")[1]["nrpn/joint"] == 0
    # resumed at iteration 2, the warm-up of 3 has one iteration left
    trained = run(*arguments, "SOLVER.MAX_ITER", "5", "--resume")
    lines = metrics(tmp_path / "out")
    assert list(lines) == [1, 4]
    history = lines[4]
    assert history["nrpn/joint"] == 1 and history["loss_nrpn_cls"] > 0
    assert history["nrpn/false_positives"] == 16

    weights = torch.load(tmp_path / "out" / "model_final.pth", weights_only=False)
    assert weights["iteration"] == 4
    evaluated = run(
        *arguments, "--eval-only", "MODEL.WEIGHTS", str(tmp_path / "out/model_final.pth")
    )
    expected = ["TEST.EXPECTED_RESULTS", "[['bbox', 'AP50', 200.0, 1.0]]"]
    weights = ["--eval-only", "MODEL.WEIGHTS", str(tmp_path / "out/model_final.pth")]
    with pytest.raises(SystemExit):
        run(*arguments, *weights, *expected)
    for task in ("box_proposals", "bbox", "bbox@50", "bbox@100", "bbox@300"):
        assert evaluated[task] == pytest.approx(trained[task], nan_ok=True), task
    for budget in (50, 100, 300):
        for threshold in (50, 70, 90):
            for size in ("", "s", "m", "l"):
                assert f"R{threshold}{size}@{budget}" in evaluated["box_proposals"]


def test_warmup_ends_at_the_same_iteration_with_and_without_a_break(own_folder, tmp_path):
    """With a log line per iteration: joint from iteration 3 on, counted over the whole run."""
    arguments = ["shapes_nrpn", tmp_path / "out", *SMALL, *own_folder, "SOLVER.MAX_ITER"]
    phases = {}
    for max_iter in ("2", "3", "4", "5"):
        run(*arguments, max_iter, "--resume")
        phases.update({i: line["nrpn/joint"] for i, line in metrics(tmp_path / "out").items()})
    assert phases == {1: 0, 2: 0, 3: 1, 4: 1}


def test_log_shows_the_exchange(own_folder, tmp_path):
    run("shapes_nrpn", tmp_path / "out", *SMALL, *own_folder, "SOLVER.MAX_ITER", "4")
    log = (tmp_path / "out" / "log.txt").read_text()
    assert re.search(
        r"nRPN joint: 16 false positives per image; of the nRPN's proposals, the RPN still "
        r"believes \d+ %  ap: \S+  hard_negatives: ",
        log,
    )
    assert [p for p in os.listdir(tmp_path / "out") if p.startswith("events.out")]


def test_demo(own_folder, tmp_path):
    command = [sys.executable, f"{ROOT}/tools/demo.py", "OUTPUT_DIR", str(tmp_path / "demo")]
    command += [*SMALL, *own_folder, "SOLVER.MAX_ITER", "25"]
    for message in ("16.0 at the end", "holds a trained model"):
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500)
        assert result.returncode == 0, result.stderr[-3000:]
        assert message in result.stdout
        assert "recall at 100 proposals and IoU 0.5: " in result.stdout
        assert "#proposals" in result.stdout and "mAP" in result.stdout
    picture = tmp_path / "demo" / "proposals.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in result.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpus_that_are_not_there():
    result = subprocess.run(
        [sys.executable, f"{ROOT}/train_net.py", "--config-file", "x.yaml", "--num-gpus", "1"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1 and "--num-gpus 0" in result.stderr
    assert "Traceback" not in result.stderr


def test_warmup_scales_with_the_world_size():
    cfg = small_cfg(MODEL__NRPN__WARMUP_ITERS=1000)
    assert scale_nrpn_warmup(cfg, 4).MODEL.NRPN.WARMUP_ITERS == 1000
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 2
    assert scale_nrpn_warmup(cfg, 2).MODEL.NRPN.WARMUP_ITERS == 1000
    assert scale_nrpn_warmup(cfg, 8).MODEL.NRPN.WARMUP_ITERS == 250
    assert cfg.MODEL.NRPN.WARMUP_ITERS == 1000


@pytest.mark.parametrize("config", ["voc_nrpn_vgg16", "voc_iou_vgg16"])
def test_an_experiment_at_full_size(config, tmp_path, monkeypatch):
    """The paper's, and the one that we recommend: VGG-16 at 600 pixels.

    Two iterations, with the nRPN the second joint, and an evaluation.
    """
    objects = [
        ("dog", (48, 60, 195, 371)),
        ("person", (8, 12, 352, 350)),
        ("cat", (1, 1, 90, 80), 1),
    ]
    images = [
        {"id": "000001", "size": (500, 375), "objects": objects},
        {"id": "000002", "size": (375, 500), "objects": objects[:1]},
    ]
    ids = ["000001", "000002"]
    write_voc_folder(tmp_path / "VOC2007", images, splits={"trainval": ids, "test": ids})
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    results = run(
        config,
        tmp_path / "out",
        "MODEL.WEIGHTS",
        "",
        "SOLVER.MAX_ITER",
        "2",
        "MODEL.NRPN.WARMUP_ITERS",
        "1",
        "DATALOADER.NUM_WORKERS",
        "0",
    )
    joint = metrics(tmp_path / "out")[1].get("nrpn/joint")
    assert joint == (1 if config == "voc_nrpn_vgg16" else None)
    assert 0 <= results["bbox"]["AP50"] <= 100 and 0 <= results["box_proposals"]["R50@300"] <= 100
