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
NUM_IMAGES, TOP, MIN_SCORE = 4, 5, 0.5  # of the picture: images, proposals, detections' score


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default=CONFIG, help="default: configs/shapes_nrpn.yaml")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    return parser.parse_intermixed_args(args)


def views(model, inputs: dict, class_names: list[str]) -> dict[str, tuple]:
    """Return what the parts of a model find in one image, as far as it has them.

    Returns:
        title -> (K, 4) boxes in pixels of the image, best first, and labels (None: ranks).
    """
    from detectron2.modeling import GeneralizedRCNN
    from detectron2.modeling.postprocessing import detector_postprocess

    size = inputs["height"], inputs["width"]
    # A ProposalNetwork has all that this method needs, but not the method
    images = GeneralizedRCNN.preprocess_image(model, [inputs])
    features = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, features, None)
    networks = {"RPN": proposals}
    if getattr(model.proposal_generator, "negative_rpn", None) is not None:
        networks["nRPN"] = model.proposal_generator.propose_negatives(images, features)
    result = {}
    for name, (of_image,) in networks.items():
        boxes = detector_postprocess(of_image, *size).proposal_boxes.tensor
        result[f"{name}'s proposals"] = boxes[:TOP].cpu().numpy(), None
    if hasattr(model, "roi_heads"):
        (detections,), _ = model.roi_heads(images, features, proposals, None)
        detections = detector_postprocess(detections, *size)
        sure = detections[detections.scores > MIN_SCORE].to("cpu")
        labels = [f"{class_names[c]} {s:.2f}" for c, s in zip(sure.pred_classes, sure.scores)]
        result["detections"] = sure.pred_boxes.tensor.numpy(), labels
    return result


def draw(cfg, model, batches, path: str) -> None:
    """Draw some test images with objects: a row for each of :func:`views`."""
    import torch
    from detectron2.data.detection_utils import read_image

    from nrpn_d2.evaluation.figures import Panel, picture_grid
    from nrpn_d2.evaluation.ground_truth import load_ground_truth

    truth = load_ground_truth(cfg.DATASETS.TEST[0])
    rows: dict[str, list[Panel]] = {}
    model.eval()
    for (inputs,) in batches:
        objects = truth.boxes[truth.of_image(truth.index_of(inputs["image_id"]))]
        if not len(objects):
            continue
        image = read_image(inputs["file_name"], "RGB")
        with torch.no_grad():
            found = views(model, inputs, truth.class_names)
        for title, (boxes, labels) in found.items():
            rows.setdefault(title, []).append(Panel(title, image, boxes, objects, labels))
        if all(len(row) == NUM_IMAGES for row in rows.values()):
            break
    panels = [panel for row in rows.values() for panel in row]
    columns = max(map(len, rows.values()), default=1)
    picture_grid(panels, columns, "proposal with rank, or detection").savefig(path, dpi=150)


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
        lines.append(
            "  confident false positives of the RPN (anchors per training image): "
            f"{joined}{after[-1]:.1f} at the end"
        )
    lines += [
        f"Pictures: {picture} (what they propose and detect), {folder}/inference/*.png (curves)",
        "Next, the detector on an image, a folder or a glob of yours:",
        f"  python tools/predict.py --config-file {os.path.relpath(config_file)} --input {image} "
        f"--output output/predictions MODEL.WEIGHTS {folder}/model_final.pth",
    ]
    return "\n".join(lines)


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.engine.defaults import setup_run
    from nrpn_d2.engine.trainer import Trainer

    opts = ["OUTPUT_DIR", os.path.join("output", "demo"), *args.opts]
    cfg = setup_run(args.config_file, opts, resume=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < trainer.max_iter:
        results = trainer.train()
    else:
        print(f"{cfg.OUTPUT_DIR} holds a trained model; delete it to train again")
        results = Trainer.test(cfg, trainer.model)
    batches = Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])
    picture = os.path.join(cfg.OUTPUT_DIR, "proposals.png")
    draw(cfg, trainer.model, batches, picture)
    image = os.path.relpath(batches.dataset[0]["file_name"])
    print("\n" + summary(cfg, args.config_file, results, image, picture))


if __name__ == "__main__":
    arguments = parse_args()
    from nrpn_d2.engine.command_line import run

    run(main, arguments)
