"""COCO and YOLO exports of the images of a VOC folder."""

import json
import os
import shutil

COCO_IDS = (7, 3, 12)  # of the first classes; not in the order of their names


def to_coco(records, class_names, folder):
    """Write annotations.json and images/, and return DATASETS.OWN's value without the name."""
    images, annotations = [], []
    os.makedirs(f"{folder}/images")
    ids = sorted(COCO_IDS[: len(class_names)])
    for number, record in enumerate(records):
        name = os.path.basename(record["file_name"])
        shutil.copy(record["file_name"], f"{folder}/images/{name}")
        size = {key: record[key] for key in ("width", "height")}
        images.append({"id": 100 + number, "file_name": name, **size})
        for obj in record["annotations"]:
            x0, y0, x1, y1 = obj["bbox"]
            annotation = {"id": len(annotations), "image_id": 100 + number}
            annotation |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": obj["difficult"]}
            annotations.append(annotation | {"category_id": ids[obj["category_id"]]})
    categories = [{"id": i, "name": name} for i, name in zip(ids, class_names)]
    content = {"images": images, "annotations": annotations, "categories": categories[::-1]}
    with open(f"{folder}/annotations.json", "w") as file:
        json.dump(content, file)
    return [f"{folder}/annotations.json", f"{folder}/images"]


def to_yolo(records, class_names, folder):
    """Write data.yaml, images/train and labels/train; difficult objects are left out."""
    for part in ("images", "labels"):
        os.makedirs(f"{folder}/{part}/train")
    for record in records:
        stem, suffix = os.path.splitext(os.path.basename(record["file_name"]))
        shutil.copy(record["file_name"], f"{folder}/images/train/{stem}{suffix}")
        lines = []
        for obj in record["annotations"]:
            (x0, y0, x1, y1), width, height = obj["bbox"], record["width"], record["height"]
            values = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
            values += (x1 - x0) / width, (y1 - y0) / height
            if not obj["difficult"]:
                lines.append(f"{obj['category_id']} " + " ".join(f"{v:.6f}" for v in values))
        if lines:
            with open(f"{folder}/labels/train/{stem}.txt", "w") as file:
                file.write("\n".join(lines))
    with open(f"{folder}/data.yaml", "w") as file:
        file.write(f"train: images/train\nnc: {len(class_names)}\nnames: {list(class_names)}\n")
    return [f"{folder}/data.yaml"]
