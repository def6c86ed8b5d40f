#!/usr/bin/env python
"""Train RPN and nRPN together on the embedded dataset `shapes`, evaluate, and draw what they see.

    python tools/demo.py                      # some minutes on a CPU; what `make demo` runs
    python tools/demo.py SOLVER.MAX_ITER 300  # any key can be overridden

Everything is written to output/demo. Run it again and it goes on from the last checkpoint.
"""

import argparse
import json
import os

from command import new_parser, parse, run

CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../configs/shapes_nrpn.yaml")
NUM_IMAGES, TOP, MIN_SCORE = 4, 5, 0.5  # of the picture: images, proposals, detections' score


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--config-file", default=CONFIG, help="default: configs/shapes_nrpn.yaml")
    return parse(parser, args)


def draw(images, path: str) -> None:
    """Draw some ``Images``: a row each for the RPN, the nRPN and the detector, if there is one."""
    from nrpn_d2.engine.visualize import save
    from nrpn_d2.evaluation import pictures
    from nrpn_d2.evaluation.panels import picture_grid
    from nrpn_d2.evaluation.views import choose_images

    columns = []
    for n in choose_images(images.records, NUM_IMAGES):
        view = images.view(n)
        panels = [*pictures.proposals(view, TOP), *pictures.hard_negatives(view, TOP)[:1]]
        if images.cfg.MODEL.META_ARCHITECTURE != "ProposalNetwork":
            panels.append(pictures.detections(view, *images.detect(n, MIN_SCORE)))
        columns.append(panels)
    save(picture_grid([panel for row in zip(*columns) for panel in row], len(columns)), path)


def summary(cfg, config_file: str, results: dict, image: str, picture: str) -> str:
    """Return what was trained, how good it is, where the pictures are, and what to run next."""
    solver, folder = cfg.SOLVER, cfg.OUTPUT_DIR
    lines = [
        f"Trained a {cfg.MODEL.META_ARCHITECTURE} on {', '.join(cfg.DATASETS.TRAIN)}: "
        f"{solver.MAX_ITER} iterations of {solver.IMS_PER_BATCH} images, negatives of the RPN from "
        f"{cfg.MODEL.RPN.NEGATIVE_SAMPLER.NAME}"
    ]
    recall = results["box_proposals"].get("R50@100")
    if recall is not None:
        lines.append(f"  recall at 100 proposals and IoU 0.5: {recall:.1f} %")
    if "bbox" in results:
        lines.append(f"  mAP at IoU 0.5: {results['bbox']['AP50']:.1f} %")
    with open(os.path.join(folder, "metrics.json")) as f:
        logged = [line for line in map(json.loads, f) if "nrpn/joint" in line]
    before, after = (
        [line["nrpn/false_positives"] for line in logged if line["nrpn/joint"] == joint]
        for joint in (0, 1)
    )
    if after:
        joined = f"{before[-1]:.1f} when the nRPN joined, " if before else ""
        words = "confident false positives of the RPN (anchors per training image)"
        lines.append(f"  {words}: {joined}{after[-1]:.1f} at the end")
    lines += [
        f"Open {folder}/index.html: how good it is, where it fails, which score threshold to use",
        f"Pictures: {picture} (what they propose and detect), {folder}/inference/*.png (curves)",
        "Next, the detector on an image, a folder or a glob of yours:",
        f"  python tools/predict.py --config-file {os.path.relpath(config_file)} --input {image} "
        f"--output output/predictions MODEL.WEIGHTS {folder}/model_final.pth",
    ]
    return "\n".join(lines)


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.engine.defaults import setup_run
    from nrpn_d2.engine.trainer import Trainer
    from nrpn_d2.engine.visualize import Images

    opts = ["OUTPUT_DIR", os.path.join("output", "demo"), *args.opts]
    cfg = setup_run(args.config_file, opts, resume=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < trainer.max_iter:
        results = trainer.train()
    else:
        print(f"{cfg.OUTPUT_DIR} holds a trained model; delete it to train again")
        results = Trainer.test(cfg, trainer.model)
    picture = os.path.join(cfg.OUTPUT_DIR, "proposals.png")
    weights = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    images = Images(args.config_file, [*opts, "MODEL.WEIGHTS", weights])
    draw(images, picture)
    image = os.path.relpath(images.records[0]["file_name"])
    print("\n" + summary(cfg, args.config_file, results, image, picture))


if __name__ == "__main__":
    run(main, parse_args())
