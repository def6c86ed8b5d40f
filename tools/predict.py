#!/usr/bin/env python
"""Draw what a trained model finds in images, and write it as JSON.

    python tools/predict.py --config-file configs/shapes_nrpn.yaml --input images/ \
        --output predictions MODEL.WEIGHTS output/demo/model_final.pth
    python tools/predict.py ... --proposals --top-k 20   # what the RPN proposes

predictions/results.json is a list in COCO's result format: image_id is the file's path below the
folder that all inputs share, category_id counts classes from 0 (proposals: 0), bbox is x, y, width
and height in pixels. It has everything the model gives; pictures only show what --top-k and
--min-score let through. Unreadable images are reported and skipped; then the exit code is 1.
"""

import argparse
import glob
import json
import os
import sys

from detectron2.data.detection_utils import convert_image_to_rgb, read_image
from detectron2.structures import BoxMode
from detectron2.utils.logger import setup_logger
from detectron2.utils.visualizer import Visualizer
from PIL import Image
from tqdm import tqdm

from nrpn_d2.deploy.predictor import Predictor, class_names, load_config, load_model
from nrpn_d2.utils.saving import atomic_open


def find_images(pattern):
    """
    Args:
        pattern (str): an image, a folder or a glob.

    Returns:
        list[str]: paths, sorted; of a folder, the files whose extension Pillow knows.
    """
    if os.path.isdir(pattern):
        known = Image.registered_extensions()
        names = sorted(os.listdir(pattern))
        paths = [os.path.join(pattern, n) for n in names if os.path.splitext(n)[1].lower() in known]
    elif os.path.exists(pattern):  # also if its name has brackets
        paths = [pattern]
    else:
        paths = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
    if not paths:
        sys.exit(f"--input {pattern}: there is no image")
    return paths


def common_folder(paths):
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


def found_in(predictor, image, proposals):
    """
    Returns:
        boxes (K, 4) x0, y0, x1, y1; probabilities (K,); classes (K,), 0 for proposals; best first.
    """
    if proposals:
        found = predictor.propose(image).to("cpu")
        scores = found.objectness_logits.sigmoid()
        return found.proposal_boxes.tensor, scores, scores.new_zeros(len(found)).long()
    found = predictor.detect(image).to("cpu")
    return found.pred_boxes.tensor, found.scores, found.pred_classes


def to_coco(image_id, boxes, scores, classes):
    boxes = BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    return [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for box, score, category in zip(boxes.tolist(), scores.tolist(), classes.tolist())
    ]


def draw(image, boxes, labels, path):
    picture = Visualizer(image).overlay_instances(boxes=boxes.numpy(), labels=labels)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.fromarray(picture.get_image()).save(path)


def output_path(folder, name):
    """Where the picture of an image goes: JPEG and PNG keep their names."""
    keep = os.path.splitext(name)[1].lower() in (".jpg", ".jpeg", ".png")
    return os.path.join(folder, name if keep else f"{name}.png")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the training")
    parser.add_argument("--input", required=True, help="an image, a folder, or a glob in quotes")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--proposals", action="store_true", help="proposals, not detections")
    parser.add_argument("--top-k", type=int, default=10, help="boxes to draw (default: 10)")
    parser.add_argument("--min-score", type=float, help="to draw (default: 0.5; proposals: 0)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    args = parser.parse_args()
    if args.min_score is None:
        args.min_score = 0.0 if args.proposals else 0.5
    return args


def main():
    args = parse_arguments()
    paths = find_images(args.input)
    folder = common_folder(paths)
    if os.path.abspath(args.output) == folder:
        sys.exit(f"--output {args.output} is the folder of the images: pictures would replace them")
    setup_logger(name="nrpn_d2")
    cfg = load_config(args.config_file, args.opts)
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork" and not args.proposals:
        sys.exit("a ProposalNetwork detects nothing; see what it proposes with --proposals")
    predictor, names = Predictor(cfg, load_model(cfg)), class_names(cfg)
    results, unreadable = [], []
    for path in tqdm(paths, unit="image", disable=len(paths) == 1):
        name = os.path.relpath(os.path.abspath(path), folder)
        try:
            image = read_image(path, cfg.INPUT.FORMAT)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
            unreadable.append(path)
            tqdm.write(f"{path} cannot be read: {e}", file=sys.stderr)
            continue
        boxes, scores, classes = found_in(predictor, image, args.proposals)
        results += to_coco(name.replace(os.sep, "/"), boxes, scores, classes)
        shown = (scores >= args.min_score).nonzero()[: args.top_k, 0]
        labels = [
            f"{scores[i]:.2f}" if args.proposals else f"{names[classes[i]]} {scores[i]:.2f}"
            for i in shown.tolist()
        ]
        rgb = convert_image_to_rgb(image, cfg.INPUT.FORMAT)
        draw(rgb, boxes[shown], labels, output_path(args.output, name))
    os.makedirs(args.output, exist_ok=True)
    with atomic_open(os.path.join(args.output, "results.json"), "w") as f:
        json.dump(results, f)
    done = len(paths) - len(unreadable)
    print(f"{len(results)} boxes in {done} of {len(paths)} images: {args.output}")
    if unreadable:
        sys.exit(f"{len(unreadable)} images could not be read: {', '.join(unreadable)}")


if __name__ == "__main__":
    main()
