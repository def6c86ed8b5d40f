"""Data: VOC-layout folders and the embedded dataset ``shapes``, from files to model input.

voc_layout.py, image_header.py, voc_xml.py    folders and lists, images, annotations
voc_image.py                                  one image of these
voc.py, parallel.py, voc_cache.py             -> records (Detectron2's dataset dicts)
drawing.py, shapes.py                         the folder of the embedded dataset
catalog.py                                    the names of all datasets
mapper.py                                     record -> model input
loader.py                                     -> batches, by the seed and the iteration alone
"""

from .catalog import check_datasets, register_datasets, register_voc
from .mapper import VOCDatasetMapper
from .shapes import SHAPES_CLASSES, make_shapes
from .voc import VOCError, read_voc

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
