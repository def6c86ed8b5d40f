"""Broken data for test_bad_input.py: what only a run meets; tests/data has the other faults."""

import os

from small_run import CAT

from nrpn_d2.data import VOCDatasetMapper

TRAINS = "trains"


def option(**options):
    """Other values of keys; "__" stands for the dot."""
    changed = {key.replace("__", "."): value for key, value in options.items()}
    return lambda run: run.options.update(changed)


def box(*edges):
    return lambda run: run.objects(CAT, ("cat", edges))


def image(*arguments):
    return lambda run: run.picture(*arguments)


def both(*changes):
    return lambda run: [change(run) for change in changes]


def while_training(change):
    """Changes something when the first image is loaded."""

    def arrange(run):
        load = VOCDatasetMapper.__call__
        run.patch.setattr(
            VOCDatasetMapper, "__call__", lambda self, record: (change(run), load(self, record))[1]
        )

    return arrange


ROWS = {
    "nothing broken": (lambda run: None, TRAINS),
    # images
    "truncated JPEG": (
        lambda run: os.truncate(run.image, 700),
        r"a\.jpg: the image cannot be dec.*; replace the",
    ),
    "zero bytes": (lambda run: run.image.write_bytes(b""), r"a\.jpg: the image cannot .*; replace"),
    "1 pixel": (image("RGB", (1, 1)), r"a\.xml: object 0 .'cat'.*has no area; remove or redraw"),
    "panorama": (
        image("RGB", (20000, 10)),
        r"a\.jpg: the image .*cannot be resized.*must be > 0.*; repl",
    ),
    "panorama that can be resized": (image("RGB", (20000, 100)), TRAINS),
    "image removed while training": (
        while_training(lambda run: run.image.unlink()),
        r"a\.jpg: .*No such file.*; replace the f",
    ),
    "image changed while training": (
        while_training(image("RGB", (10, 10))),
        r"a\.jpg, got \(10, 10\).*changed.*start again",
    ),
    # annotations
    "no area": (box(5, 5, 5, 30), r"a\.xml: object 1 .*has no area; remove or redraw it"),
    "10,000 boxes": (
        both(
            lambda run: run.objects(*[CAT] * 10_000),
            option(MODEL__META_ARCHITECTURE="ProposalNetwork"),
        ),
        TRAINS,
    ),
    "no objects": (lambda run: run.objects(), r"own_train.*none of 1 images has an object.*check"),
    "difficult objects only": (lambda run: run.objects((*CAT, 1)), r"own_train.*none of 1 images."),
    "missing XML": (lambda run: run.xml.unlink(), r"own_train.*none of 1 images has an object.*ch"),
    # splits and folders
    "no such split": (
        lambda run: run.split.unlink(),
        r"DATASETS\.TRAIN names 'own_train'.*no such dataset; did",
    ),
    "link to the folder around it": (
        lambda run: (run.image.parent / "up").symlink_to(run.root),
        TRAINS,
    ),
    "the folder is a file": (
        lambda run: run.options.update({"DATASETS.VOC_ROOT": str(run.xml)}),
        r"a\.xml: there is no such folder; correct the path",
    ),
    "no DETECTRON2_DATASETS": (
        both(
            lambda run: run.patch.delenv("DETECTRON2_DATASETS", raising=False),
            option(DATASETS__TRAIN="('nrpn_voc_2007_val',)", MODEL__ROI_HEADS__NUM_CLASSES="20"),
        ),
        r"VOC2007: there is no such folder; extract VOC there, or set DETECTRON2_DATASETS",
    ),
}
