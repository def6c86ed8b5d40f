"""Predictions on a dataset as files that COCO's tools, viewers and FiftyOne read.

ground_truth.json   the dataset; for pycocotools.coco.COCO
WHAT.json           the same with the predictions, and their scores, as annotations; for viewers
WHAT_results.json   the predictions alone; for COCO.loadRes

A file_name is relative to the folder that all images share.
"""

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BoxMode, Instances
from torch import nn
from tqdm import tqdm

from ..data.loader import build_test_loader
from ..evaluation import load_ground_truth, with_budgets
from ..utils.boxes import lies_off
from ..utils.saving import atomic_open
from .outputs import as_detections
from .predict_files import common_folder

WHAT = ("detections", "proposals", "false-positives")


def predict_dataset(
    cfg: CfgNode, model: nn.Module, dataset_name: str, what: str
) -> Iterator[Instances]:
    """Yield the predictions on each image of a dataset, in its order and in pixels of its images.

    Proposals and false positives are of class 0. False positives are what the miner would take:
    proposals with a score over MODEL.NRPN.FP_SCORE whose IoU with every object is below FP_IOU, and
    of which less than IGNORE_IOA lies on a difficult object or a crowd.

    Raises:
        ValueError: for detections of a ``ProposalNetwork``.
    """
    if what == "detections" and not hasattr(model, "roi_heads"):
        raise ValueError(f"a {type(model).__name__} detects nothing, it only proposes")
    model = with_budgets(model, [cfg.MODEL.RPN.POST_NMS_TOPK_TEST])
    truth, limits = load_ground_truth(dataset_name), cfg.MODEL.NRPN
    for inputs in tqdm(build_test_loader(cfg, dataset_name), unit="image"):
        with torch.no_grad():
            (outputs,) = model(inputs)
        found = outputs["instances"] if what == "detections" else outputs["proposals"]
        found = (found if what == "detections" else as_detections(found)).to("cpu")
        if what == "false-positives":
            of_image = truth.of_image(truth.index_of(inputs[0]["image_id"]))
            labels, boxes = truth.boxes[of_image], found.pred_boxes.tensor.numpy()
            ignored, score = truth.ignored[of_image], found.scores.numpy()
            wrong = lies_off(boxes, labels, ignored, limits.FP_IOU, limits.IGNORE_IOA)
            found = found[torch.from_numpy(wrong & (score > limits.FP_SCORE))]
        yield found


def write_coco(
    folder: str, dataset_name: str, what: str, predictions: Iterable[Instances]
) -> tuple[str, int]:
    """Write the three files.

    Image ids are the dataset's if all of them are numbers, else they count from 1; so do the
    categories, unless the dataset is a COCO file with ids of its own.

    Args:
        predictions: on each image, in the dataset's order; of detections, all classes.

    Returns:
        The folder that all images share, and the number of predictions.
    """
    records, metadata = DatasetCatalog.get(dataset_name), MetadataCatalog.get(dataset_name)
    of_coco = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    category_ids = {n: category_id for category_id, n in of_coco.items()}
    category_ids = category_ids or {n: n + 1 for n in range(len(metadata.thing_classes))}
    numbered = all(isinstance(record["image_id"], int) for record in records)
    image_ids = [r["image_id"] if numbered else n for n, r in enumerate(records, 1)]
    images_folder = common_folder(record["file_name"] for record in records)
    images = [
        {
            "id": image_id,
            "file_name": os.path.relpath(record["file_name"], images_folder).replace(os.sep, "/"),
            "width": record["width"],
            "height": record["height"],
        }
        for image_id, record in zip(image_ids, records)
    ]
    objects = [
        _object(image_id, annotation, category_ids)
        for image_id, record in zip(image_ids, records)
        for annotation in record.get("annotations", ())
    ]
    classes = [{"id": category_ids[n], "name": x} for n, x in enumerate(metadata.thing_classes)]
    kinds = classes
    if what != "detections":
        category_ids, kinds = {0: 1}, [{"id": 1, "name": what.replace("-", " ").rstrip("s")}]
    results = [
        {**row, "category_id": category_ids[row["category_id"]]}
        for image_id, found in zip(image_ids, predictions, strict=True)
        for row in instances_to_coco_json(found, image_id)
    ]
    for name, content in {
        "ground_truth": _dataset(dataset_name, images, objects, classes),
        what: _dataset(f"{what} on {dataset_name}", images, results, kinds),
        f"{what}_results": results,
    }.items():
        with atomic_open(os.path.join(folder, f"{name}.json"), "w") as f:
            json.dump(content, f)
    return images_folder, len(results)


def _object(image_id: int, annotation: dict[str, Any], ids: dict[int, int]) -> dict[str, Any]:
    """Return COCO's annotation of an object; a difficult one is a crowd, which COCO ignores."""
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
    ignored = annotation.get("difficult", 0) or annotation.get("iscrowd", 0)
    return {
        "image_id": image_id,
        "category_id": ids[annotation["category_id"]],
        "bbox": np.asarray(box, float).tolist(),
        "iscrowd": int(bool(ignored)),
    }


def _dataset(
    description: str, images: list[dict], boxes: list[dict], categories: list[dict]
) -> dict[str, Any]:
    annotations = [
        {"id": n, "iscrowd": 0, "segmentation": [], "area": row["bbox"][2] * row["bbox"][3], **row}
        for n, row in enumerate(boxes, 1)
    ]
    return {
        "info": {"description": description},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
