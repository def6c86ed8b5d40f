"""Folders in PASCAL VOC layout -> Detectron2's dataset dicts."""
