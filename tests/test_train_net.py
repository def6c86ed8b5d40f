"""End to end: train, resume, evaluate, as a user does."""

import os

import demo
import pytest
import torch
from exports import to_yolo
from small_training import CLASSES, losses, write_images
from voc_folder import write_voc_folder

import train_net
from nrpn_d2.data import read_voc

pytestmark = pytest.mark.usefixtures("run")  # which leaves no dataset and no log handler behind
ROOT = os.path.dirname(os.path.abspath(train_net.__file__))
SMALL = [
    *("MODEL.VGG.WIDTHS", "[32, 32, 32, 32]", "MODEL.VGG.DEPTHS", "[1, 1, 1, 1]"),
    *("MODEL.VGG.FC_DIM", "32", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
    *("SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "SEED", "1"),
    *("MODEL.NRPN.FP_SELECT", "topk", "MODEL.NRPN.WARMUP_ITERS", "3"),
]


@pytest.fixture
def own_folder(tmp_path):
    """Options that train a small model on a folder of one's own, with no code."""
    data = ["DATASETS.VOC_NAME", "ours", "DATASETS.VOC_ROOT", write_images(tmp_path / "folder")]
    data += ["DATASETS.VOC_CLASSES", str(CLASSES)]
    return data + ["DATASETS.TRAIN", "('ours_train',)", "DATASETS.TEST", "('ours_test',)"]


def run(config, output_dir, *arguments):
    """``python train_net.py --num-gpus 0 ...``, in this process."""
    flags = [a for a in arguments if a.startswith("--")]
    opts = [a for a in arguments if not a.startswith("--")]
    command = ["--config-file", f"{ROOT}/configs/{config}.yaml", "--num-gpus", "0", *flags]
    command += ["OUTPUT_DIR", str(output_dir), *opts]
    return train_net.main(train_net.parse_args(command))


def test_train_resume_evaluate(own_folder, tmp_path):
    out = tmp_path / "out"
    arguments = ["shapes_nrpn_overlap", out, *SMALL, *own_folder]
    run(*arguments, "SOLVER.MAX_ITER", "2")
    assert losses(out)[1]["nrpn/joint"] == 0
    # resumed at iteration 2, the warm-up of 3 has one iteration left
    trained = run(*arguments, "SOLVER.MAX_ITER", "5", "--resume")
    lines = losses(out)
    assert list(lines) == [1, 4]
    assert lines[4]["nrpn/joint"] == 1 and lines[4]["loss_nrpn_cls"] > 0
    assert lines[4]["nrpn/false_positives"] == 16
    exchange = "nRPN joint: 16 false positives per image; of the nRPN's proposals, the RPN still "
    assert exchange + "believes " in (out / "log.txt").read_text()
    assert list(out.glob("events.out*"))

    config = (out / "config.yaml").read_text()
    weights = ["--eval-only", "MODEL.WEIGHTS", str(out / "model_final.pth")]
    evaluated = run(*arguments, *weights)
    assert (out / "config.yaml").read_text() == config  # of the run, not of its evaluation
    expected = ["TEST.EXPECTED_RESULTS", "[['bbox', 'AP50', 200.0, 1.0]]"]
    with pytest.raises(SystemExit):
        run(*arguments, *weights, *expected)
    for task in ("box_proposals", "bbox", "bbox@50", "bbox@100", "bbox@300"):
        assert evaluated[task] == pytest.approx(trained[task], nan_ok=True), task
    assert "R70m@100" in evaluated["box_proposals"]


def test_demo(own_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["OUTPUT_DIR", str(tmp_path / "demo"), *SMALL, *own_folder, "SOLVER.MAX_ITER", "4"]
    for message in ("16.0 at the end", "holds a trained model"):
        demo.main(demo.parse_args(options))
        printed = capsys.readouterr().out
        assert message in printed
        assert "recall at 100 proposals and IoU 0.5: " in printed
        assert "#proposals" in printed and "mAP" in printed
    picture = tmp_path / "demo" / "proposals.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in printed


@pytest.mark.parametrize("config, joint", [("voc_nrpn_vgg16", 1), ("voc_iou_vgg16", None)])
def test_the_papers_experiment_and_ours(config, joint, tmp_path, monkeypatch):
    """All convolutions of VGG-16, smaller images and layers behind them: train and evaluate."""
    objects = [("dog", (48, 60, 195, 371)), ("cat", (1, 1, 90, 80), 1)]
    images = [{"id": "000001", "size": (500, 375), "objects": objects}]
    splits = {"trainval": ["000001"], "test": ["000001"]}
    write_voc_folder(tmp_path / "VOC2007", images, splits)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    options = ["MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", "2", "MODEL.NRPN.WARMUP_ITERS", "1"]
    options += ["MODEL.VGG.FC_DIM", "64", "INPUT.MIN_SIZE_TRAIN", "(240,)"]
    options += ["INPUT.MIN_SIZE_TEST", "240", "DATALOADER.NUM_WORKERS", "0"]
    results = run(config, tmp_path / "out", *options)
    assert losses(tmp_path / "out")[1].get("nrpn/joint") == joint
    assert 0 <= results["bbox"]["AP50"] <= 100 and 0 <= results["box_proposals"]["R50@300"] <= 100


def test_four_keys_fine_tune_a_detector(tmp_path):
    out, records = tmp_path / "out", read_voc(write_images(tmp_path / "voc"), "train", CLASSES)
    (path,) = to_yolo(records, CLASSES, tmp_path / "yolo")
    with open(path, "a") as file:
        file.write("val: images/train\n")
    data, weights = ["DATASETS.OWN", f"[['mine', '{path}']]"], ["MODEL.WEIGHTS", ""]
    quick = ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", *SMALL[-10:-4]]
    quick += ["TEST.PROPOSALS.BUDGETS", "[10]"]
    opts = [*data, *weights, "SOLVER.MAX_ITER", "2", *quick]
    results = run("own_data_mobilenet_v2", out, *opts)
    assert {f"AP50-{name}" for name in CLASSES} < set(results["bbox"])
    state = torch.load(out / "model_final.pth", weights_only=True)["model"]
    assert len(state["roi_heads.box_predictor.cls_score.bias"]) == len(CLASSES) + 1
    assert "the learning rate never reaches BASE_LR" in (out / "log.txt").read_text()
