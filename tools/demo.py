#!/usr/bin/env python
"""Train RPN and nRPN together on the embedded dataset `shapes`, evaluate, and draw what they see.

    python tools/demo.py                      # some minutes on a CPU; what `make demo` runs
    python tools/demo.py SOLVER.MAX_ITER 300  # any key can be overridden

Everything is written to output/demo. Run it again and it goes on from the last checkpoint.
"""

import argparse
import json
import os

CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../configs/shapes_nrpn.yaml")


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default=CONFIG, help="default: configs/shapes_nrpn.yaml")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    return parser.parse_intermixed_args(args)


def top_proposals(model, inputs):
    """The RPN's and the nRPN's proposals for one image, in its original pixels, best first."""
    from detectron2.modeling.postprocessing import detector_postprocess

    images = model.preprocess_image([inputs])
    features = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, features)
    negatives = model.proposal_generator.propose_negatives(images, features)
    size = inputs["height"], inputs["width"]
    return [
        detector_postprocess(found[0], *size).proposal_boxes.tensor.cpu().numpy()
        for found in (proposals, negatives)
    ]


def draw(cfg, model, num_images=4):
    """Draw the top-10 proposals of both networks and the objects of some test images."""
    import torch
    from detectron2.data import DatasetCatalog
    from detectron2.data.detection_utils import read_image

    from nrpn_d2.engine.trainer import Trainer
    from nrpn_d2.evaluation.figures import proposal_grid

    model.eval()
    dataset_name = cfg.DATASETS.TEST[0]
    records = {r["image_id"]: r for r in DatasetCatalog.get(dataset_name)}
    pictures, columns, objects = [], {"RPN": [], "nRPN": []}, []
    for (inputs,) in Trainer.build_test_loader(cfg, dataset_name):
        record = records[inputs["image_id"]]
        if not record["annotations"]:
            continue
        pictures.append(read_image(record["file_name"], "RGB"))
        objects.append([a["bbox"] for a in record["annotations"]])
        with torch.no_grad():
            found = top_proposals(model, inputs)
        for boxes, of_network in zip(columns.values(), found):
            boxes.append(of_network)
        if len(pictures) == num_images:
            break
    path = os.path.join(cfg.OUTPUT_DIR, "proposals.png")
    proposal_grid(pictures, columns, objects).savefig(path, dpi=100)
    return path


def mined(cfg):
    """False positives found and hard negatives used per image, from the run's metrics."""
    with open(os.path.join(cfg.OUTPUT_DIR, "metrics.json")) as f:
        lines = [json.loads(line) for line in f]
    joint = [line for line in lines if line.get("nrpn/joint")]
    if not joint:
        return "The warm-up did not end: the nRPN was not trained."
    found = [line["nrpn/false_positives"] for line in joint]
    used = [line["nrpn/hard_negatives"] for line in joint]
    return (
        f"False positives that the miner found per image: {sum(found) / len(found):.2f} on average "
        f"(at most {max(found):.2f}, at the end {found[-1]:.2f}).\n"
        f"Hard negatives that the RPN learned from per image: {sum(used) / len(used):.2f}."
    )


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.engine.defaults import setup_run
    from nrpn_d2.engine.trainer import Trainer

    opts = ["SOLVER.MAX_ITER", "600", "SOLVER.STEPS", "(450,)"]
    opts = ["OUTPUT_DIR", os.path.join("output", "demo"), *opts, *args.opts]
    cfg = setup_run(args.config_file, opts, resume=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < trainer.max_iter:
        results = trainer.train()
    else:
        print(f"{cfg.OUTPUT_DIR} holds a trained model; delete it to train again")
        results = Trainer.test(cfg, trainer.model)
    recall = results["box_proposals"]["R50@100"]
    print(f"\n{mined(cfg)}\nRecall at 100 proposals and IoU 0.5: {recall:.1f} %")
    print(f"Model, log, tables and figures: {cfg.OUTPUT_DIR}")
    print(f"Top-10 proposals of the RPN and the nRPN, and ground truth: {draw(cfg, trainer.model)}")


if __name__ == "__main__":
    arguments = parse_args()
    from nrpn_d2.engine.command_line import run

    run(main, arguments)
