"""Broken data, configs, checkpoints, command lines and disks, for test_bad_input.py.

What the values of keys may be is in tests/test_config.py, other faults of data are in tests/data,
and of files that torch reads in tests/utils/test_safe_load.py.
"""

import os
import resource

import torch
from detectron2.modeling import BACKBONE_REGISTRY
from small_run import CAT

from nrpn_d2.data import VOCDatasetMapper
from nrpn_d2.engine import run_folder
from nrpn_d2.utils import saving

TRAINS = "trains"
WEIGHT = "backbone.conv1_1.weight"
OWN_TEST = {"DATASETS__TEST": "('own_test',)"}


def option(**options):
    """Other values of keys; "__" stands for the dot."""
    changed = {key.replace("__", "."): value for key, value in options.items()}
    return lambda run: run.options.update(changed)


def both(*changes):
    return lambda run: [change(run) for change in changes]


def image(*arguments):
    return lambda run: run.picture(*arguments)


def no_bytes(run):
    run.image.write_bytes(b"")


def while_training(change):
    """Changes something when the first image is loaded."""

    def arrange(run):
        load = VOCDatasetMapper.__call__
        run.patch.setattr(
            VOCDatasetMapper, "__call__", lambda self, record: (change(run), load(self, record))[1]
        )

    return arrange


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


def resumed(**options):
    """A run that has ended, and goes on with other options."""

    def change(run):
        run.train()
        run.flags.append("--resume")
        option(**{"SOLVER__MAX_ITER": "2", **options})(run)

    return change


def without_optimizer(run):
    path = run.out / "model_final.pth"
    torch.save({"model": torch.load(path, weights_only=True)["model"]}, path)


def evaluated(run):
    """Evaluate what the run has written."""
    run.flags[-1] = "--eval-only"
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


def full_disk(run):
    """No file may become larger than 90 kB: the log fits, the checkpoint does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, hard))
    run.clean_up = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def read_only(run):
    """Tests may run as root, who may write everywhere."""
    really_make = os.makedirs

    def refuse(path, *arguments, **keywords):
        if str(path).startswith(str(run.out)):
            raise OSError(30, "Read-only file system", str(path))
        really_make(path, *arguments, **keywords)

    run.patch.setattr(os, "makedirs", refuse)


ROWS = {
    "nothing broken": (lambda run: None, TRAINS),
    # images and annotations
    "1 pixel": (image("RGB", (1, 1)), r"a\.xml: object 0 .'cat'.*has no area; remove or redraw"),
    "panorama that can be resized": (image("RGB", (20000, 100)), TRAINS),
    "image removed while training": (
        while_training(lambda run: run.image.unlink()),
        r"a\.jpg: .*No such file.*; replace the f",
    ),
    "image changed while training": (
        while_training(image("RGB", (10, 10))),
        r"a\.jpg, got \(10, 10\).*changed.*start again",
    ),
    "zero bytes, in a process of the data loader": (
        both(option(DATALOADER__NUM_WORKERS="1"), no_bytes),
        r"(?m)^error: \S+a\.jpg: the image cannot .*; replace",
    ),
    "10,000 boxes": (
        both(
            lambda run: run.objects(*[CAT] * 10_000),
            option(MODEL__META_ARCHITECTURE="ProposalNetwork"),
        ),
        TRAINS,
    ),
    "no objects": (lambda run: run.objects(), r"own_train.*none of 1 images has an object.*check"),
    "difficult objects only": (lambda run: run.objects((*CAT, 1)), r"own_train.*none of 1 images."),
    # datasets
    "no such split": (
        lambda run: run.split.unlink(),
        r"DATASETS\.TRAIN names 'own_train'.*no such dataset; did",
    ),
    "link to the folder around it": (
        lambda run: (run.image.parent / "up").symlink_to(run.root),
        TRAINS,
    ),
    "too few classes in the model": (
        option(DATASETS__VOC_CLASSES="['cat', 'dog']"),
        r"NUM_CLASSES is 1, and 'own_tr.*; make t",
    ),
    "too many classes in the model": (
        option(MODEL__ROI_HEADS__NUM_CLASSES="2", **OWN_TEST),
        r"NUM_CLASSES is 2, and 'own_test' has 1 classes; make the two equal",
    ),
    "more classes in the model than in the images to train on": (
        option(MODEL__ROI_HEADS__NUM_CLASSES="2"),
        TRAINS,
    ),
    # configs
    "no such config": (
        lambda run: setattr(run, "config", run.folder / "no.yaml"),
        r"no\.yaml.* not exist; corre",
    ),
    "no config": (lambda run: setattr(run, "config", ""), r"--config-file is empty; give a"),
    "empty config": (config(""), r"config\.yaml: it must consist of sections and lines KEY"),
    "binary config": (config(b"\x00\xff\x01"), r"config\.yaml: not UTF-8 text.*is it a config"),
    "tab in config": (config("SEED: 1\n\tA: 2\n"), r"config\.yaml: invalid YAML(?s:.*)line 2"),
    "section twice": (
        config("SEED: 1\nMODEL:\n  DEVICE: cpu\nMODEL:\n  MASK_ON: False\n"),
        r"config\.yaml: invalid YAML(?s:.*)'MODEL' is on line 2, too; write it once",
    ),
    "_BASE_ is missing": (config("_BASE_: no.yaml\n"), r"config\.yaml: .*no\.yaml.*; correct the "),
    "_BASE_ is a number": (config("_BASE_: 3\n"), r"config\.yaml: .* a file as _BASE_"),
    "too deep": (config("[" * 5000), r"config\.yaml: .* or it is nested too deeply"),
    "_BASE_ is itself": (config("_BASE_: config.yaml\n"), r"config\.yaml: its _BASE_ leads back"),
    "unknown key in config": (
        config("MODEL:\n  NRPM:\n    A: 1\n"),
        r"config\.yaml: Non-existent.*MODEL\.NRPM; correct",
    ),
    "unknown key": (option(MODEL__NRPN__FP_SCOER="0.5"), r"Non-existent key: MODEL\.NRPN\.FP_SCOE"),
    "text for a number": (option(MODEL__NRPN__FP_SCORE="high"), r"high.* key: MODEL\.NRPN\.FP_SCO"),
    "threshold over 1": (
        option(MODEL__NRPN__FP_SCORE="1.5"),
        r"MODEL\.NRPN\.FP_SCORE is 1\.5; it must be in \[0, ",
    ),
    "no such backbone": (
        option(MODEL__BACKBONE__NAME="build_vgg"),
        r"'build_vgg' found in 'BACKBONE' registry",
    ),
    "backbone that the nRPN cannot have": (
        another_backbone,
        r"MODEL\.NRPN needs a second.*'two_kinds' builds.*SHARE_FEATURES True",
    ),
    "division by zero": (option(MODEL__PIXEL_STD="[0., 0., 0.]"), r"Iteration 0: the losses are n"),
    # what would end, or be ignored, after the training
    "mixed precision on the CPU": (
        option(SOLVER__AMP__ENABLED="True"),
        r"SOLVER\.AMP\.ENABLED is True, and MODEL\.DEVICE 'cpu'; it needs a GPU",
    ),
    "GPU that is not there": (option(MODEL__DEVICE="cuda"), r"MODEL\.DEVICE is 'cuda', but the"),
    "test-time augmentation": (option(TEST__AUG__ENABLED="True"), r"TEST\.AUG\.ENABLED is True; "),
    "model without proposals": (
        option(MODEL__META_ARCHITECTURE="RetinaNet"),
        r"META_ARCHITECTURE is 'RetinaNet', which has no proposals; it must be 'GeneralizedRCNN', ",
    ),
    "misspelt metric": (
        option(TEST__EVAL_PERIOD="1", SOLVER__BEST_METRIC="bbox/AP51", **OWN_TEST),
        r"SOLVER\.BEST_METRIC is 'bbox/AP51'; .*bbox/AP50",
    ),
    # checkpoints
    "weights of other shapes": (
        weights({"model": {WEIGHT: torch.zeros(9, 3, 3, 3)}}),
        r"weights\.pth: no parameter of the model matches",
    ),
    "weights that are NaN": (
        weights({"model": {WEIGHT: torch.full((8, 3, 3, 3), torch.nan)}}),
        r"Iteration 0: the losses are not finite(?s:.*)weights were not finite: backbone\.conv1_1",
    ),
    "no such weights": (option(MODEL__WEIGHTS="no.pth"), r"no\.pth: No such file or directory"),
    # runs that go on, or evaluate
    "nothing to resume": (flags("--resume"), TRAINS),
    "last_checkpoint without its file": (
        tag(b"model_0000009.pth"),
        r"last_checkpoint names 'model_0000009\.pth'.*; write the name",
    ),
    "empty last_checkpoint": (tag(b""), r"last_checkpoint names ''.*; write the name of a checkpo"),
    "resumed with another backbone": (
        resumed(MODEL__VGG__WIDTHS="[16, 8, 8, 8]"),
        r"model_final\.pth was written by a run of another model.*another OUTPUT_DIR(?s:.*)\(16, ",
    ),
    "resumed with frozen layers": (
        resumed(MODEL__BACKBONE__FREEZE_AT="2"),
        r"run to be resumed trained \d+ parameters .* the change of MODEL\.BACKBONE\.FREEZE_AT",
    ),
    "resumed after its end": (
        both(option(SOLVER__MAX_ITER="2"), resumed(SOLVER__MAX_ITER="1")),
        r"model_final\.pth is of iteration 2, after SOLVER\.MAX_ITER 1; make that large",
    ),
    "checkpoint without optimizer": (both(resumed(), without_optimizer), TRAINS),
    "evaluation without weights": (
        both(flags("--eval-only"), option(**OWN_TEST)),
        r"MODEL\.WEIGHTS is ''; it must be the checkpoint to evaluate",
    ),
    "evaluation of another model": (
        both(resumed(MODEL__VGG__FC_DIM="8", **OWN_TEST), evaluated),
        r"WEIGHTS and the config do not fit(?s:.*)roi_heads\.box_head\.fc7\.weight: \(16, 16\)",
    ),
    # the command line
    "negative number of GPUs": (flags("--num-gpus", "-1"), r"--num-gpus is -1; it must be at leas"),
    "GPUs that are not there": (flags("--num-gpus", "1"), r"--num-gpus 1, but 0 .*--num-gpus 0"),
    "machine that is not there": (flags("--machine-rank", "1"), r"--machine-rank is 1 and --num-m"),
    "key without value": (
        lambda run: run.more.append("MODEL.DEVICE"),
        r"odd length: (?s:.*)'MODEL\.DEVICE'\]; it m",
    ),
    # the disk
    "output is a file": (lambda run: run.out.write_text(""), r"out: File exists"),
    "options in the output's name": (
        option(OUTPUT_DIR="out?pixels=caffe"),
        r"OUTPUT_DIR is 'out\?pixels=caffe'; it must be a local folder without '\?'",
    ),
    "output of a run that goes on": (in_use, r"out is in use by .*host h, process 7"),
    "read-only output": (read_only, r"out: Read-only file system"),
    "full disk": (full_disk, r"out/model_final\.pth: File too large"),
    "lost drive": (lost_drive, r"out/model_final\.pth: Input/output error"),
}
