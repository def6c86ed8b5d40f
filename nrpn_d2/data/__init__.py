"""Data: VOC-layout folders and the embedded dataset ``shapes``, from files to model input.

voc/             folders in VOC layout -> records (Detectron2's dataset dicts)
image_header.py  which images are usable, and their size
shapes/          the folder of the embedded dataset
catalog.py       the names of all datasets
mapper.py        record -> model input
loader.py        -> batches, by the seed and the iteration alone
"""

from .catalog import check_datasets, register_datasets, register_voc
from .mapper import VOCDatasetMapper
from .shapes.dataset import SHAPES_CLASSES, make_shapes
from .voc.reader import VOCError, read_voc

__all__ = [
    "SHAPES_CLASSES",
    "VOCDatasetMapper",
    "VOCError",
    "check_datasets",
    "make_shapes",
    "read_voc",
    "register_datasets",
    "register_voc",
]
