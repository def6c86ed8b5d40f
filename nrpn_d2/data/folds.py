"""Parts of a dataset for cross-validation, by name.

``cells_train_fold0of3`` is the first third of ``cells_train``, ``cells_train_without0of3`` all but
that. A name in DATASETS.TRAIN or TEST is enough.
"""

import functools
import re
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from .faults import DatasetError
from .reading import Dataset


def fold_name(name: str, fold: int, folds: int, held_out: bool) -> str:
    """Return the name of a fold's own images, or of all others."""
    return f"{name}_{'fold' if held_out else 'without'}{fold}of{folds}"


def fold_dataset(name: str) -> Dataset | None:
    """Return the dataset that a name means; None if it is that of no fold."""
    match = re.fullmatch(r"(.+)_(fold|without)(\d{1,3})of(\d{1,3})", name)
    if not match or match[1] not in DatasetCatalog or int(match[3]) >= int(match[4]):
        return None
    whole, fold, folds = match[1], int(match[3]), int(match[4])
    metadata = {k: v for k, v in MetadataCatalog.get(whole).as_dict().items() if k != "name"}
    return Dataset(functools.partial(_read, whole, fold, folds, match[2] == "fold"), metadata)


def _read(whole: str, fold: int, folds: int, held_out: bool) -> list[dict[str, Any]]:
    records = DatasetCatalog.get(whole)
    if len(records) < folds:
        message = f"dataset {whole!r} has {len(records)} images, too few for {folds} folds"
        raise DatasetError(f"{message}; take fewer folds")
    # Shuffled: many datasets are sorted by what is in the images
    numbers = np.random.default_rng(0).permutation(len(records)) % folds
    return [record for record, number in zip(records, numbers) if (number == fold) == held_out]
