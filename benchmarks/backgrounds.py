#!/usr/bin/env python
"""Train on `shapes` without its images without objects, mine such images, and train again.

    python benchmarks/backgrounds.py --output output/backgrounds   # 16 minutes of CPU time

Three trainings of equal length for each seed: "without" such images, with the --count best "mined"
ones (tools/mine_backgrounds.py with the first model), and with as many "random" ones of the same
pool, those without objects among the generator's first --pool images. Prints the false positives
per image at the score at which a recall is reached on 150 test images: detections whose IoU with
every object is below 0.3; on these images, and on others without objects. Recall counts
detections of the right class with an IoU of 0.5. What is in --output is not made again.
"""

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

from nrpn_d2.checkpoint.trained_model import load_model
from nrpn_d2.data import read_voc
from nrpn_d2.data.shapes.dataset import SHAPES_CLASSES, make_shapes
from nrpn_d2.deploy.predictor import Predictor
from nrpn_d2.deploy.sources import read_image
from nrpn_d2.engine.command_line import run
from nrpn_d2.engine.defaults import build_cfg
from nrpn_d2.utils.boxes import box_iou

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = os.path.join(ROOT, "configs", "shapes_rpn.yaml")
RECALLS = (0.7, 0.8, 0.85)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default=os.path.join("output", "backgrounds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--count", type=int, default=100, help="images to add")
    parser.add_argument("--pool", type=int, default=3000)
    parser.add_argument("--test", type=int, default=1500, help="images, half of the pool's")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="of the trainings")
    return parser.parse_intermixed_args()


def make_data(folder: str, num_train: int, num_test: int) -> tuple[str, dict[str, list[str]]]:
    """Write the splits base (of the first 600, those with objects), pool and empty, and some."""
    root = make_shapes(os.path.join(folder, "shapes"), num_train=num_train, num_test=num_test)
    splits = {"base": [], "pool": [], "empty": []}
    for split, first, rest in (("train", 600, "pool"), ("test", 0, "empty")):
        for number, record in enumerate(read_voc(root, split, SHAPES_CLASSES)):
            if not record["annotations"]:
                splits[rest].append(record["image_id"])
            elif number < first:
                splits["base"].append(record["image_id"])
    splits["some"] = [f"test_{number:05d}" for number in range(min(150, num_test))]
    for split, ids in splits.items():
        with open(os.path.join(root, "ImageSets", "Main", f"{split}.txt"), "w") as file:
            file.writelines(f"{image_id}\n" for image_id in ids)
    return root, splits


def call(script: str, *words: str) -> None:
    command = [sys.executable, os.path.join(ROOT, script), "--config-file", CONFIG]
    subprocess.run([*command, *words], check=True)


def train(folder: str, opts: Sequence[str]) -> str:
    """Train, unless that was done, and return the weights."""
    weights = os.path.join(folder, "model_final.pth")
    if not os.path.exists(weights):
        call("train_net.py", "--num-gpus", "0", "--resume", *opts, "OUTPUT_DIR", folder)
    return weights


def false_positives(weights: str, opts: Sequence[str], root: str) -> list[float]:
    """Return, for each of RECALLS, the false positives per image on "some", then on "empty"."""
    cfg = build_cfg(CONFIG, [*opts, "MODEL.WEIGHTS", weights])
    predictor, hits, wrong, sizes, num_objects = Predictor(cfg, load_model(cfg)), [], {}, {}, 0
    for split in ("some", "empty"):
        records = read_voc(root, split, SHAPES_CLASSES)
        wrong[split], sizes[split] = [], len(records)
        for record in records:
            inputs = predictor.inputs_of_rgb(read_image(record["file_name"]))
            found = predictor.detect_batch([inputs])[0].to("cpu")
            objects = record["annotations"]
            boxes = np.array([obj["bbox"] for obj in objects], np.float64).reshape(-1, 4)
            classes = np.array([obj["category_id"] for obj in objects], np.int64)
            ious = box_iou(found.pred_boxes.tensor.numpy()[:, None], boxes)  # (detections, G)
            scores = found.scores.numpy()
            wrong[split].append(scores[(ious < 0.3).all(axis=1)])
            is_hit = (ious >= 0.5) & (found.pred_classes.numpy()[:, None] == classes)
            best = np.where(is_hit, scores[:, None], 0).max(axis=0, initial=0)  # of each object
            learned = [not obj["difficult"] for obj in objects]
            hits.append(best[learned])
            num_objects += sum(learned)
    hits = np.sort(np.concatenate(hits))[::-1]
    row = []
    for split, scores in wrong.items():
        for recall in RECALLS:
            threshold = hits[int(np.ceil(recall * num_objects)) - 1] or np.nan  # 0: not reached
            count = (np.concatenate(scores) >= threshold).sum()
            row.append(np.nan if np.isnan(threshold) else count / sizes[split])
    return row


def main(args: argparse.Namespace) -> None:
    setup_logger(name="nrpn_d2")
    output = os.path.abspath(args.output)
    root, splits = make_data(output, args.pool, args.test)
    images, rows = os.path.join(root, "JPEGImages"), []
    for seed in args.seeds:
        data = ["DATASETS.VOC_NAME", "backgrounds", "DATASETS.VOC_ROOT", root]
        data += ["DATASETS.VOC_CLASSES", str(list(SHAPES_CLASSES)), "DATASETS.TEST", "()"]
        opts = [*data, "SEED", str(seed), *args.opts]
        base = [*opts, "DATASETS.TRAIN", "('backgrounds_base',)"]
        weights = {"without": train(os.path.join(output, f"without_seed{seed}"), base)}
        mined = os.path.join(output, f"mined_seed{seed}", "backgrounds.txt")
        if not os.path.exists(mined):
            flags = ["--output", os.path.dirname(mined), "--count", str(args.count)]
            flags += ["--dataset", "backgrounds_pool", *base, "MODEL.WEIGHTS", weights["without"]]
            call(os.path.join("tools", "mine_backgrounds.py"), *flags, "--min-score", "0.2")
        chosen = os.path.join(output, f"random_seed{seed}.txt")
        with open(chosen, "w") as file:
            some = random.Random(seed).sample(splits["pool"], min(args.count, len(splits["pool"])))
            file.writelines(f"{image_id}.png\n" for image_id in some)
        for variant, path in (("mined", mined), ("random", chosen)):
            folder = os.path.join(output, f"{variant}_seed{seed}")
            own = ["DATASETS.OWN", str([["added", path, images]])]
            both = ["DATASETS.TRAIN", "('backgrounds_base', 'added')"]
            weights[variant] = train(folder, [*opts, *own, *both])
        for variant, path in weights.items():
            rows.append([variant, seed, *false_positives(path, base, root)])
    headers = [f"{x} at {recall:g}" for x in ("test", "no objects") for recall in RECALLS]
    print(tabulate(rows, ["variant", "seed", *headers], tablefmt="pipe", floatfmt=".3g"))


if __name__ == "__main__":
    run(main, parse_args())
