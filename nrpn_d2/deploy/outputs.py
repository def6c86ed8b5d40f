"""Write what a model predicts: COCO's JSON, a table, pictures, videos and crops."""

import csv
import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from PIL import Image

from ..utils.saving import atomic_open
from .sources import is_video_name, suffix

_KEPT = (".jpg", ".jpeg", ".png", ".mp4")


def as_detections(proposals: Instances) -> Instances:
    """Return proposals as detections of class 0; the scores are probabilities."""
    detections = Instances(proposals.image_size)
    detections.pred_boxes = proposals.proposal_boxes
    detections.scores = proposals.objectness_logits.sigmoid()
    detections.pred_classes = detections.scores.new_zeros(len(proposals)).long()
    return detections


def picture_names(names: Iterable[str]) -> dict[str, str]:
    """Return the name of each input's picture or video; no two inputs share one.

    JPEG, PNG and MP4 files keep theirs, others get one more suffix: a.bmp -> a.bmp.png, or
    a.bmp.png.png where a.bmp.png is an input, too.
    """
    names = list(names)
    pictures = {name: name for name in names if suffix(name) in _KEPT}
    taken = set(pictures)
    for name in names:
        if name not in pictures:
            picture, ending = name, ".mp4" if is_video_name(name) else ".png"
            while picture == name or picture in taken:
                picture += ending
            pictures[name] = picture
            taken.add(picture)
    return pictures


class Results:
    """All predictions so far, for results.json and results.csv."""

    def __init__(self, class_names: Sequence[str]):
        self.class_names = class_names
        self.rows: list[dict[str, Any]] = []

    def add(self, image_id: str, detections: Instances) -> None:
        """Add one image's "pred_boxes", "scores", "pred_classes", and masks and keypoints."""
        for row in instances_to_coco_json(detections, image_id):
            self.rows.append({**row, "category_name": self.class_names[row["category_id"]]})

    def write(self, folder: str) -> None:
        """Write results.json, in COCO's result format with names, and results.csv."""
        with atomic_open(os.path.join(folder, "results.json"), "w") as f:
            json.dump(self.rows, f)
        with atomic_open(os.path.join(folder, "results.csv"), "w") as f:
            table = csv.writer(f, lineterminator="\n")
            table.writerow(["image", "class", "score", "x", "y", "width", "height"])
            for row in self.rows:
                box = [f"{x:.2f}" for x in row["bbox"]]
                table.writerow([row["image_id"], row["category_name"], f"{row['score']:.4f}", *box])


def write_image(path: str, picture: np.ndarray) -> None:
    """Write (H, W, 3) RGB; the format is that of the suffix."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.fromarray(picture).save(path, quality=92)


def write_crops(
    path: str, image: np.ndarray, boxes: np.ndarray, labels: Sequence[str], prefix: str = ""
) -> None:
    """Write what is in each box beside the picture ``path``: a.png -> a.png.crops/000_cat_0.93.png.

    Args:
        image: (H, W, 3) RGB.
        boxes: (K, 4) in pixels of the image, each with a label.
        prefix: of the crops' names.
    """
    height, width = image.shape[:2]
    for n, (box, label) in enumerate(zip(boxes, labels)):
        x0, y0 = np.floor(box[:2]).astype(int).clip(0, (width - 1, height - 1))
        x1, y1 = np.ceil(box[2:]).astype(int).clip((x0 + 1, y0 + 1), (width, height))
        name = re.sub(r"[^\w.-]+", "_", f"{prefix}{n:03d}_{label}.png")
        write_image(os.path.join(f"{path}.crops", name), image[y0:y1, x0:x1])


class VideoWriter:
    """A video that has its name once it is whole."""

    def __init__(self, path: str, frame_rate: float):
        self.path = path
        self.frame_rate = frame_rate
        self._half = f"{os.path.splitext(path)[0]}.half{suffix(path)}"
        self._writer = None

    def write(self, picture: np.ndarray) -> None:
        """Append (H, W, 3) RGB, of the same size each time.

        Raises:
            OSError: if OpenCV cannot write videos there.
        """
        import cv2  # only videos need OpenCV

        if self._writer is None:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            codec, size = cv2.VideoWriter_fourcc(*"mp4v"), picture.shape[1::-1]
            self._writer = cv2.VideoWriter(self._half, codec, self.frame_rate, size)
            if not self._writer.isOpened():
                raise OSError(f"OpenCV cannot write the video {self.path}")
        self._writer.write(picture[:, :, ::-1])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
            os.replace(self._half, self.path)
            self._writer = None
