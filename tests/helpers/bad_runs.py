"""Broken configs, checkpoints, command lines and disks, for test_bad_input.py."""

import os
import resource

import torch
from bad_data import TRAINS, both, option
from detectron2.modeling import BACKBONE_REGISTRY

from nrpn_d2.engine import run_folder
from nrpn_d2.utils import saving

WEIGHT = "backbone.conv1_1.weight"


def full_disk(run):
    """No file may become larger than 90 kB: the log fits, the checkpoint does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, hard))
    run.clean_up = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def resumed(**options):
    """A run that has ended, and goes on with other options."""

    def change(run):
        run.train()
        run.flags.append("--resume")
        option(**{"SOLVER__MAX_ITER": "2", **options})(run)

    return change


def config(content):
    return lambda run: run.config_file(content)


def weights(content):
    return lambda run: run.weights(content)


def tag(content):
    """The file that names the checkpoint of a run to be resumed."""
    return lambda run: run.last_checkpoint(content)


def flags(*words):
    return lambda run: run.flags.extend(words)


def another_backbone(run):
    """A backbone whose builder gives a wider one the second time."""
    calls = []

    def build_two_kinds(cfg, input_shape):
        calls.append(cfg)
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.VGG.WIDTHS = [8, 8, 8, 8 * len(calls)]
        return BACKBONE_REGISTRY.get("build_vgg_backbone")(cfg, input_shape)

    run.patch.setitem(BACKBONE_REGISTRY._obj_map, "two_kinds", build_two_kinds)
    run.options["MODEL.BACKBONE.NAME"] = "two_kinds"


def checkpoint_file(change):
    """A run that has ended, whose checkpoint is changed before it goes on."""
    return both(resumed(), lambda run: change(run.out / "model_final.pth"))


def weights_of_run(run):
    """Evaluate what the run has written."""
    run.flags.remove("--resume")
    run.options["MODEL.WEIGHTS"] = str(run.out / "model_final.pth")


def in_use(run):
    """Another process holds the lock of the output folder."""

    def held(*_):
        raise OSError(11, "Resource temporarily unavailable")

    run.out.mkdir()
    (run.out / ".lock").write_text("host h, process 7\n")
    run.patch.setattr(run_folder.fcntl, "lockf", held)


def lost_drive(run):
    """When a checkpoint has been written, and is to have its name."""

    def gone(*_):
        raise OSError(5, "Input/output error")

    run.patch.setattr(saving.os, "replace", gone)


def read_only(run):
    """Tests may run as root, who may write everywhere."""
    really_make = os.makedirs

    def refuse(path, *arguments, **keywords):
        if str(path).startswith(str(run.out)):
            raise OSError(30, "Read-only file system", str(path))
        really_make(path, *arguments, **keywords)

    run.patch.setattr(os, "makedirs", refuse)


ROWS = {
    # configs
    "no such config": (
        lambda run: setattr(run, "config", run.folder / "no.yaml"),
        r"no\.yaml.* not exist; corre",
    ),
    "config is a folder": (
        lambda run: setattr(run, "config", run.root),
        r"data: .*not exist; correct the file or it",
    ),
    "no config": (lambda run: setattr(run, "config", ""), r"--config-file is empty; give a"),
    "empty config": (config(""), r"config\.yaml: it must consist of sections and lines KEY"),
    "config is a list": (config("- a\n- b\n"), r"config\.yaml: it must consist of sections and"),
    "empty section": (config("MODEL:\n"), r"config\.yaml: it must consist of .* none of them em"),
    "binary config": (config(b"\x00\xff\x01"), r"config\.yaml: not UTF-8 text.*is it a config"),
    "tab in config": (
        config("SEED: 1\n\tA: 2\n"),
        r"config\.yaml: invalid YAML(?s:.*)line 2",
    ),
    "unclosed bracket": (
        config("MODEL: {A: 1\n"),
        r"config\.yaml: invalid YAML(?s:.*)line 2",
    ),
    "Python in config": (
        config("SEED: !!python/object/apply:os.mkdir [hacked]\n"),
        r"config\.yaml: .*Python objects are refused(?s:.*)os\.mkdir",
    ),
    "_BASE_ is missing": (config("_BASE_: no.yaml\n"), r"config\.yaml: .*no\.yaml.*; correct the "),
    "_BASE_ is itself": (config("_BASE_: config.yaml\n"), r"config\.yaml: its _BASE_ leads back"),
    "unknown key in config": (
        config("MODEL:\n  NRPM:\n    A: 1\n"),
        r"config\.yaml: Non-existent.*MODEL\.NRPM; correct",
    ),
    "text for a number in config": (
        config("SOLVER:\n  MAX_ITER: many\n"),
        r"config\.yaml: .*many.*SOLVER\.MAX_ITER; correct",
    ),
    "unknown key": (option(MODEL__NRPN__FP_SCOER="0.5"), r"Non-existent key: MODEL\.NRPN\.FP_SCOE"),
    "text for a number": (option(MODEL__NRPN__FP_SCORE="high"), r"high.* key: MODEL\.NRPN\.FP_SCO"),
    "threshold over 1": (
        option(MODEL__NRPN__FP_SCORE="1.5"),
        r"MODEL\.NRPN\.FP_SCORE is 1\.5; it must be in \[0, ",
    ),
    "NaN threshold": (
        config("MODEL:\n  NRPN:\n    FP_IOU: .nan\n"),
        r"NRPN\.FP_IOU is nan; it must be in \[0, ",
    ),
    "class given twice": (
        option(DATASETS__VOC_CLASSES="['cat', 'cat']"),
        r"class name 'cat' is given more than onc",
    ),
    "class list is text": (option(DATASETS__VOC_CLASSES="cat"), r"cat.*key: DATASETS\.VOC_CLASSES"),
    "too few classes in the model": (
        option(DATASETS__VOC_CLASSES="['cat', 'dog']"),
        r"NUM_CLASSES is 1, and 'own_tr.*; make t",
    ),
    "too many classes in the model": (
        option(MODEL__ROI_HEADS__NUM_CLASSES="2", DATASETS__TEST="('own_test',)"),
        r"NUM_CLASSES is 2, and 'own_test' has 1 classes; make the two equal",
    ),
    "more classes in the model than in the images to train on": (
        option(MODEL__ROI_HEADS__NUM_CLASSES="2"),
        TRAINS,
    ),
    "misspelt dataset": (
        option(DATASETS__TRAIN="('own_trian',)"),
        r"TRAIN names 'own_trian'.*did you mean 'own_tr",
    ),
    "no dataset": (option(DATASETS__TRAIN="()"), r"DATASETS\.TRAIN is \(\); it must be the names "),
    "unset variable": (
        option(DATASETS__VOC_ROOT="$NO_SUCH/x"),
        r"\$NO_SUCH/x: an environment variable .*; set i",
    ),
    "no such sampler": (
        option(MODEL__RPN__NEGATIVE_SAMPLER__NAME="Randm"),
        r"NAME is 'Randm'; .*'Random'",
    ),
    "no such loss": (
        option(MODEL__RPN__OBJECTNESS_LOSS__NAME="Hinge"),
        r"NAME is 'Hinge'; .* one of 'BCE', ",
    ),
    "focal loss on a sample": (
        option(MODEL__RPN__OBJECTNESS_LOSS__NAME="Focal"),
        r"OBJECTNESS_LOSS\.NAME 'Focal' does n",
    ),
    "no such backbone": (
        option(MODEL__BACKBONE__NAME="build_vgg"),
        r"'build_vgg' found in 'BACKBONE' registry",
    ),
    "backbone that the nRPN cannot have": (
        another_backbone,
        r"MODEL\.NRPN needs a second.*'two_kinds' builds.*SHARE_FEATURES True",
    ),
    "no such feature map": (
        option(MODEL__RPN__IN_FEATURES="['conv9']"),
        r"RPN\.IN_FEATURES is \['conv9'\].*: conv4",
    ),
    "no such feature map for the heads": (
        option(MODEL__ROI_HEADS__IN_FEATURES="['res4']"),
        r"HEADS\.IN_FEATURES is \['res4'\].*: c",
    ),
    "anchors for two maps": (
        option(MODEL__ANCHOR_GENERATOR__SIZES="[[8], [16]]"),
        r"SIZES is \[\[8\], \[16\]\]; it must be a list of 1 or",
    ),
    "anchors of size 0": (
        option(MODEL__ANCHOR_GENERATOR__SIZES="[[0]]"),
        r"SIZES is \[\[0\]\]; it must be positive",
    ),
    "IoU thresholds exchanged": (
        option(MODEL__RPN__IOU_THRESHOLDS="[0.7, 0.3]"),
        r"IOU_THRESHOLDS is \[0\.7, 0\.3\]; it m",
    ),
    "text for thresholds": (
        option(TEST__PROPOSALS__IOU_THRESHOLDS="['x']"),
        r"IOU_THRESHOLDS is \['x'\]; it must be ",
    ),
    "layer without channels": (
        option(MODEL__VGG__WIDTHS="[8, 0, 8, 8]"),
        r"VGG\.WIDTHS is \[8, 0, 8, 8\]; it must be a",
    ),
    "no iterations": (option(SOLVER__MAX_ITER="0"), r"SOLVER\.MAX_ITER is 0; it must be at least "),
    "no batch": (option(SOLVER__IMS_PER_BATCH="0"), r"SOLVER\.IMS_PER_BATCH is 0; it is the numbe"),
    "no sizes": (option(INPUT__MIN_SIZE_TRAIN="()"), r"INPUT\.MIN_SIZE_TRAIN is \(\); it must be "),
    "division by zero": (option(MODEL__PIXEL_STD="[0., 0., 0.]"), r"Iteration 0: the losses are n"),
    # what would end, or be ignored, after the training
    "mixed precision on the CPU": (
        option(SOLVER__AMP__ENABLED="True"),
        r"SOLVER\.AMP\.ENABLED is True, and MODEL\.DEVICE 'cpu'; it needs a GPU",
    ),
    "GPU that is not there": (
        option(MODEL__DEVICE="cuda"),
        r"MODEL\.DEVICE is 'cuda', but there is",
    ),
    "test-time augmentation": (
        option(TEST__AUG__ENABLED="True"),
        r"TEST\.AUG\.ENABLED is True; test",
    ),
    "no such architecture": (
        option(MODEL__META_ARCHITECTURE="RCNN"),
        r"'RCNN' found in 'META_ARCH'",
    ),
    "model without proposals": (
        option(MODEL__META_ARCHITECTURE="RetinaNet"),
        r"META_ARCHITECTURE is 'RetinaNet', which has no proposals; it must be 'GeneralizedRCNN', ",
    ),
    "misspelt metric": (
        option(
            DATASETS__TEST="('own_test',)", TEST__EVAL_PERIOD="1", SOLVER__BEST_METRIC="bbox/AP51"
        ),
        r"SOLVER\.BEST_METRIC is 'bbox/AP51'; .*bbox/AP50",
    ),
    # checkpoints
    "weights of zero bytes": (weights(b""), r"weights\.pth cannot be read: it is truncated"),
    "weights are text": (weights(b"hello"), r"weights\.pth cannot be read: it is truncated, or of"),
    "weights are a list": (weights([1]), r"weights\.pth holds no weights by name: it is not a che"),
    "no weights in the file": (weights({"model": {}}), r"weights\.pth holds no weights by name"),
    "weights of another model": (
        weights({"model": {"fc.weight": torch.zeros(2)}}),
        r"weights\.pth has nothing of the mode",
    ),
    "weights of other shapes": (
        weights({"model": {WEIGHT: torch.zeros(9, 3, 3, 3)}}),
        r"weights\.pth has nothing of the ",
    ),
    "weights that are NaN": (
        weights({"model": {WEIGHT: torch.full((8, 3, 3, 3), torch.nan)}}),
        r"Iteration 0: the losses are not finite(?s:.*)weights were not finite: backbone\.conv1_1",
    ),
    "weights with code": (
        weights({"model": {WEIGHT: os.system}}),
        r"weights\.pth is refused: it asks for .*system",
    ),
    "weights are a folder": (
        lambda run: run.options.update({"MODEL.WEIGHTS": str(run.root)}),
        r"data: Is a directory",
    ),
    "no such weights": (option(MODEL__WEIGHTS="no.pth"), r"no\.pth: No such file or directory"),
    "no such torchvision model": (
        option(MODEL__WEIGHTS="torchvision://vgg17"),
        r"vgg17'?: there are torchvision://vgg16,",
    ),
    "zero bytes, in a process of the data loader": (
        both(option(DATALOADER__NUM_WORKERS="1"), lambda run: run.image.write_bytes(b"")),
        r"(?m)^error: \S+a\.jpg: the image ",
    ),
    # runs that go on, or evaluate
    "nothing to resume": (flags("--resume"), TRAINS),
    "last_checkpoint without its file": (
        tag(b"model_0000009.pth"),
        r"last_checkpoint names 'model_0000009\.pth'.*; write the name",
    ),
    "empty last_checkpoint": (tag(b""), r"last_checkpoint names ''.*; write the name of a checkpo"),
    "binary last_checkpoint": (tag(b"\xff\0"), r"last_checkpoint cannot be read.*; write the name"),
    "resumed with another backbone": (
        resumed(MODEL__VGG__WIDTHS="[16, 8, 8, 8]"),
        r"model_final\.pth was written by a run of another model.*another OUTPUT_DIR(?s:.*)\(16, ",
    ),
    "resumed without the nRPN": (
        resumed(MODEL__RPN__NEGATIVE_SAMPLER__NAME="Random"),
        r"model_final\.pth was written by a run of another model(?s:.*)negative_rpn.*not in the m",
    ),
    "resumed after its end": (
        both(option(SOLVER__MAX_ITER="2"), resumed(SOLVER__MAX_ITER="1")),
        r"model_final\.pth is of iteration 2, after SOLVER\.MAX_ITER 1; make that large",
    ),
    "truncated checkpoint": (
        checkpoint_file(lambda path: os.truncate(path, 1000)),
        r"model_final\.pth cannot be read:",
    ),
    "checkpoint without optimizer": (
        checkpoint_file(
            lambda path: torch.save({"model": torch.load(path, weights_only=True)["model"]}, path)
        ),
        TRAINS,
    ),
    "evaluation without weights": (
        both(flags("--eval-only"), option(DATASETS__TEST="('own_test',)")),
        r"MODEL\.WEIGHTS is ''; it must be the checkpoint to evaluate",
    ),
    "evaluation on nothing": (
        both(flags("--eval-only"), weights({"model": {WEIGHT: torch.zeros(8, 3, 3, 3)}})),
        r"DATASETS\.TEST is \(\); it must be the names of the datasets to evaluate on",
    ),
    "evaluation of another model": (
        both(
            resumed(),
            flags("--eval-only"),
            weights_of_run,
            option(MODEL__VGG__FC_DIM="8", DATASETS__TEST="('own_test',)"),
        ),
        r"WEIGHTS and the config do not fit(?s:.*)roi_heads\.box_head\.fc7\.weight: \(16, 16\)",
    ),
    "resumed with frozen layers": (
        resumed(MODEL__BACKBONE__FREEZE_AT="2"),
        r"run to be resumed trained \d+ parameters .* the change of MODEL\.BACKBONE\.FREEZE_AT",
    ),
    # the command line
    "negative number of GPUs": (flags("--num-gpus", "-1"), r"--num-gpus is -1; it must be at leas"),
    "machine that is not there": (flags("--machine-rank", "1"), r"--machine-rank is 1 and --num-m"),
    "key without value": (
        lambda run: run.more.append("MODEL.DEVICE"),
        r"odd length: (?s:.*)'MODEL\.DEVICE'\]; it m",
    ),
    "misspelt flag": (lambda run: run.more.append("--reusme"), r"unrecognized arguments: --reusme"),
    # the disk
    "output is a file": (lambda run: run.out.write_text(""), r"out: File exists"),
    "options in the output's name": (
        option(OUTPUT_DIR="out?pixels=caffe"),
        r"OUTPUT_DIR is 'out\?pixels=caffe'; it must be a local folder without '\?'",
    ),
    "output of a run that goes on": (in_use, r"out is in use by .*host h, process 7"),
    "no output": (option(OUTPUT_DIR=""), r"OUTPUT_DIR is ''; it must be the folder that the run"),
    "read-only output": (read_only, r"out: Read-only file system"),
    "full disk": (full_disk, r"out/model_final\.pth: File too large"),
    "lost drive": (lost_drive, r"out/model_final\.pth: Input/output error"),
}
