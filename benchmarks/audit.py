#!/usr/bin/env python
"""Does the audit find labels that were removed on purpose, and does the detector gain by them?

    python benchmarks/audit.py --output output/audit
    python benchmarks/audit.py --output output/audit --seeds 3 --remove 0.2 SOLVER.MAX_ITER 3000

Takes a tenth of the labels from the training images of `shapes`, trains a detector of each seed on
the rest, audits with all of them, decides by the labels that were removed, as a careful user would,
for the candidates up to the last one at which the precision is at least 0.8, and trains the first
detector again on the corrected labels. What is trained is not trained again: start it anew and it
goes on. With the config's schedule it takes about 5 minutes of CPU time for each training.
"""

import argparse
import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
CONFIG = os.path.join(ROOT, "configs", "shapes_rpn.yaml")
PRECISION, IOU = 0.8, 0.5


def remove_labels(source: str, target: str, fraction: float, seed: int) -> None:
    """Copy a folder of `shapes`, its pictures as links, without some objects of its train split."""
    if os.path.exists(target):
        return
    os.makedirs(os.path.join(target, "Annotations"))
    files = sorted(os.listdir(os.path.join(source, "Annotations")))
    trees = {name: ElementTree.parse(os.path.join(source, "Annotations", name)) for name in files}
    objects = [
        (tree.getroot(), obj)
        for name, tree in trees.items()
        for obj in tree.getroot().findall("object")
        if name.startswith("train") and obj.findtext("difficult") == "0"
    ]
    count = round(fraction * len(objects))
    for number in np.random.default_rng(seed).choice(len(objects), count, replace=False):
        parent, obj = objects[number]
        parent.remove(obj)
    for name, tree in trees.items():
        tree.write(os.path.join(target, "Annotations", name))
    for part in ("JPEGImages", "ImageSets"):  # at last: with them, the folder is in VOC layout
        os.symlink(os.path.abspath(os.path.join(source, part)), os.path.join(target, part))


def data(name: str, root: str) -> list[str]:
    """Return the overrides that train and evaluate on a folder."""
    from nrpn_d2.data import SHAPES_CLASSES

    own = ["DATASETS.OWN", str([[name, root]]), "DATASETS.VOC_CLASSES", str(list(SHAPES_CLASSES))]
    return [*own, "DATASETS.TRAIN", f"('{name}_train',)", "DATASETS.TEST", f"('{name}_test',)"]


def call(script: str, *arguments: str) -> None:
    subprocess.run([sys.executable, os.path.join(ROOT, script), *arguments], check=True)


def train(folder: str, options: list[str], seed: int) -> str:
    """Train and evaluate, unless that was done; return the weights."""
    if not os.path.exists(os.path.join(folder, "inference", "results.json")):
        words = ["--config-file", CONFIG, "--num-gpus", "0", "--resume", *options]
        call("train_net.py", *words, "OUTPUT_DIR", folder, "SEED", str(seed))
    return os.path.join(folder, "model_final.pth")


def removed_objects(complete: str, missing: str) -> dict[str, list[dict]]:
    """Return the objects of each training image that only ``complete`` has."""
    from nrpn_d2.data import SHAPES_CLASSES, read_voc

    both = (read_voc(root, "train", SHAPES_CLASSES) for root in (complete, missing))
    return {
        whole["image_id"]: [x for x in whole["annotations"] if x not in part["annotations"]]
        for whole, part in zip(*both)
    }


def match(candidates: list[dict], removed: dict[str, list[dict]]) -> list[str | None]:
    """Return the class of the removed object that each candidate finds; each is found once."""
    from nrpn_d2.data import SHAPES_CLASSES
    from nrpn_d2.utils.boxes import box_iou

    left = {image_id: list(objects) for image_id, objects in removed.items()}
    found: list[str | None] = []
    for candidate in candidates:
        objects = left[candidate["image_id"]]
        ious = [box_iou(np.array(candidate["box"]), np.array(obj["bbox"])) for obj in objects]
        hit = bool(ious) and max(ious) >= IOU
        obj = objects.pop(int(np.argmax(ious))) if hit else None
        found.append(SHAPES_CLASSES[obj["category_id"]] if obj else None)
    return found


def results(folder: str) -> str:
    with open(os.path.join(folder, "inference", "results.json")) as file:
        metrics = json.load(file)["metrics"]
    recall = ", ".join(f"{x} {metrics['box_proposals'][x]:.1f}" for x in ("R50@50", "R70@100"))
    return f"mAP {metrics['bbox']['AP50']:.1f}, {recall}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="output/audit")
    parser.add_argument("--remove", type=float, default=0.1, help="fraction of the labels")
    parser.add_argument("--images", type=int, default=600, help="to train on (600, as in `shapes`)")
    parser.add_argument("--seeds", type=int, default=2, help="detectors that judge")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    args = parser.parse_intermixed_args()
    from nrpn_d2.data import make_shapes

    folder = {x: os.path.join(args.output, x) for x in ("missing", "audit", "corrected", "after")}
    sizes = {"num_train": args.images, "num_test": -(-args.images // 4)}
    complete = make_shapes(os.path.join(args.output, "shapes"), **sizes)
    remove_labels(complete, folder["missing"], args.remove, seed=1)
    options = [*data("missing", folder["missing"]), *args.opts]
    seeds = range(1, args.seeds + 1)
    before = [os.path.join(args.output, f"before{seed}") for seed in seeds]
    models = [train(name, options, seed) for name, seed in zip(before, seeds)]
    words = ["--config-file", CONFIG, "--output", folder["audit"], "--models", ",".join(models)]
    if not os.path.exists(os.path.join(folder["audit"], "candidates.json")):
        call("tools/audit_labels.py", *words, *options)
    with open(os.path.join(folder["audit"], "candidates.json")) as file:
        candidates = json.load(file)
    removed = removed_objects(complete, folder["missing"])
    classes, total = match(candidates, removed), sum(map(len, removed.values()))
    hits = np.cumsum([name is not None for name in classes])
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / total
    listed = int(np.flatnonzero(precision >= PRECISION).max(initial=-1)) + 1
    print(f"{total} labels removed, {len(candidates)} candidates, with {len(models)} detectors")
    at = f"the first {listed}" if listed else "none"
    print(f"  recall at precision {PRECISION}: {recall[listed - 1] if listed else 0:.3f} ({at})")
    reached = np.flatnonzero(recall >= 0.8)
    print(f"  precision at recall 0.8: {precision[reached[0]] if len(reached) else np.nan:.3f}")
    decisions = [
        {key: candidate[key] for key in ("image_id", "box")}
        | ({"decision": "object", "class": name} if name else {"decision": "background"})
        for candidate, name in zip(candidates[:listed], classes)
    ]
    if not os.path.exists(folder["corrected"]):
        path = os.path.join(args.output, "decisions.json")
        with open(path, "w") as file:
            json.dump({"dataset": "missing_train", "decisions": decisions}, file)
        words = ["--config-file", CONFIG, "--apply", path, "--output", folder["corrected"]]
        call("tools/audit_labels.py", *words, *options)
    train(folder["after"], [*data("corrected", folder["corrected"]), *args.opts], seed=1)
    print(f"  before: {results(before[0])}\n  after:  {results(folder['after'])}")


if __name__ == "__main__":
    main()
