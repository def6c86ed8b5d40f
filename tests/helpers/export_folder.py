"""A small dataset as COCO and as YOLO, for tests that break it."""

import json
import os

from PIL import Image
from small_models import small_cfg

from nrpn_d2.data.coco import coco_datasets
from nrpn_d2.data.yolo import yolo_datasets

BOX = [10, 5, 20, 10]
LABEL = "0 0.5 0.5 0.5 0.5"
YAML = "train: images\nnames: [cat, dog]\n"


class ExportFolder:
    """images/a.jpg with two objects and images/b.jpg with one, as COCO and as YOLO."""

    def __init__(self, root):
        self.root = root
        self.json, self.yaml = root / "coco.json", root / "data.yaml"
        (root / "images").mkdir()
        (root / "labels").mkdir()
        for name in "ab":
            Image.new("RGB", (60, 40)).save(root / "images" / f"{name}.jpg")
            self.label(LABEL, name)
        self.label(f"{LABEL}\n1 0.25 0.25 0.2 0.2\n")
        self.yaml.write_text(YAML)
        size = {"width": 60, "height": 40}
        images = [{"id": 1, "file_name": "a.jpg", **size}, {"id": 2, "file_name": "b.jpg", **size}]
        objects = [
            {"image_id": i, "category_id": c, "bbox": BOX} for i, c in ((1, 4), (1, 9), (2, 4))
        ]
        categories = [{"id": 4, "name": "cat", "keypoints": ["eye"]}, {"id": 9, "name": "dog"}]
        self.content = {"images": images, "annotations": objects, "categories": categories}
        self.save()

    def save(self):
        self.json.write_text(json.dumps(self.content))

    def label(self, text, name="a"):
        content = text if isinstance(text, bytes) else text.encode()
        (self.root / "labels" / f"{name}.txt").write_bytes(content)

    def read(self, is_coco, on_error="error"):
        """Number of objects on a and b; None for an image that was dropped."""
        cfg = small_cfg(DATASETS__ON_ERROR=on_error).DATASETS
        if is_coco:
            datasets = coco_datasets("x", [str(self.json), str(self.root / "images")], cfg)
        else:
            datasets = yolo_datasets("x", [str(self.yaml)], cfg)
        records = next(iter(datasets.values())).load()
        counts = {os.path.basename(r["file_name"])[0]: len(r["annotations"]) for r in records}
        return counts.get("a"), counts.get("b")
