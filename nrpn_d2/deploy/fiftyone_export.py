"""What coco_export.py has written, into a dataset of FiftyOne, which is imported only here."""

import os
from typing import Any

from ..utils.text_files import load_json


def import_fiftyone() -> Any:
    """Return the module.

    Raises:
        ValueError: it cannot be imported; says how to install it.
    """
    try:
        import fiftyone
        import fiftyone.utils.coco
    except ImportError as error:
        raise ValueError(f"FiftyOne is needed ({error}): pip install fiftyone") from None
    return fiftyone


def add_to_fiftyone(folder: str, what: str, images_folder: str, name: str, field: str) -> None:
    """Add predictions to the persistent dataset ``name``, made with the objects if there is none.

    Args:
        folder: with the files of ``write_coco``.
        what: were predicted.
        field: of the samples, gets the predictions; replaced if it exists.
    """
    fiftyone = import_fiftyone()
    if fiftyone.dataset_exists(name):
        dataset = fiftyone.load_dataset(name)
    else:
        dataset = fiftyone.Dataset.from_dir(
            dataset_type=fiftyone.types.COCODetectionDataset,
            data_path=images_folder,
            labels_path=os.path.abspath(os.path.join(folder, "ground_truth.json")),
            label_types="detections",
            label_field={"detections": "ground_truth", "coco_id": "coco_id"},
            include_id=True,
            name=name,
            persistent=True,
        )
    predictions = load_json(os.path.join(folder, f"{what}.json"))
    fiftyone.utils.coco.add_coco_labels(
        dataset,
        field,
        predictions["annotations"],
        predictions["categories"],
        coco_id_field="coco_id",
    )
