"""Data: COCO, YOLO, VOC layout and the embedded dataset ``shapes``, from disk to model input.

catalog.py       the names of all datasets, and the formats
checks.py        whether a config's datasets exist and fit its model
hints.py         what in a config does not fit the data that were read
coco.py          COCO's JSON -> records (Detectron2's dataset dicts)
yolo.py          data.yaml and text files -> records
backgrounds.py   lists of images without objects -> records
voc/             folders in VOC layout -> records
shapes/          the folder of the embedded dataset
folds.py         parts of a dataset for cross-validation
corrections.py   objects that were found to lack a label, added to a copy of their dataset
reading.py, faults.py, image_header.py   what the readers of all formats share
anchors/         which objects the anchors reach; anchors that fit them
inspection/      what is wrong with a dataset that could be read, and what it consists of
mapper.py        record -> model input
proposal_files.py  proposals for Detectron2's MODEL.LOAD_PROPOSALS, and of any method
loader.py        -> batches, by the seed and the iteration alone
"""

from .catalog import register_datasets, register_voc
from .checks import check_datasets, take_classes
from .faults import DatasetError
from .mapper import VOCDatasetMapper
from .shapes.dataset import SHAPES_CLASSES, make_shapes
from .voc.reader import read_voc

__all__ = [
    "SHAPES_CLASSES",
    "DatasetError",
    "VOCDatasetMapper",
    "check_datasets",
    "make_shapes",
    "read_voc",
    "register_datasets",
    "register_voc",
    "take_classes",
]
