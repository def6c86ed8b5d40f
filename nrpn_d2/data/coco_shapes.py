"""Segmentation and keypoints of COCO files, checked: for Mask R-CNN and Keypoint R-CNN.

A DatasetError names what is wrong, and no file.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from pycocotools import mask as coco_mask

from .faults import DatasetError, show
from .reading import is_coordinate


def read_segmentation(segmentation: Any, size: tuple[int, int]) -> list[list[float]] | dict:
    """Check polygons or a run-length encoding.

    Args:
        size: (width, height) of the image.

    Returns:
        What Detectron2 takes: polygons, or a compressed run-length encoding.
    """
    if isinstance(segmentation, dict):
        return _read_rle(segmentation, size)
    polygons = segmentation if isinstance(segmentation, list) else [None]
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise _fault(f"polygon {show(polygon)} is not [x, y, ...] of at least three points")
        if not all(map(is_coordinate, polygon)):
            raise _fault(f"segmentation has {show(polygon)}; make all of it finite numbers")
        _check_inside(zip(polygon[::2], polygon[1::2]), size, "a polygon")
    return polygons


def read_keypoints(keypoints: Any, size: tuple[int, int], count: int | None) -> list[float]:
    """Check [x, y, visibility, ...], and shift it as Detectron2 does: pixel 0 is at 0.5.

    The number of keypoints is to be ``count``, where that is known.
    """
    is_list = isinstance(keypoints, list) and len(keypoints) % 3 == 0
    if not is_list or not all(map(is_coordinate, keypoints)):
        raise _fault(f"keypoints is {show(keypoints)}; make it numbers [x, y, visibility, ...]")
    if count is not None and len(keypoints) != 3 * count:
        raise _fault(f"it has {len(keypoints) // 3} keypoints, its category {count}; correct it")
    points = list(zip(keypoints[::3], keypoints[1::3], keypoints[2::3]))
    if not all(v in (0, 1, 2) for _, _, v in points):
        raise _fault(f"keypoints is {show(keypoints)}; make each visibility 0, 1 or 2")
    _check_inside(((x, y) for x, y, v in points if v), size, "a keypoint")
    return list(itertools.chain.from_iterable((x + 0.5, y + 0.5, v) for x, y, v in points))


def keypoint_metadata(categories: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the metadata that Detectron2 needs for keypoints; empty without keypoint names.

    Left and right, as parts of the names, exchange when an image is flipped.
    """
    names = next((c["keypoints"] for c in categories if num_keypoints(c)), [])
    if not names or not all(isinstance(name, str) for name in names):
        return {}
    flipped = [(name, name.replace("left", "right")) for name in names if "left" in name]
    return {
        "keypoint_names": names,
        "keypoint_flip_map": [pair for pair in flipped if pair[1] in names],
    }


def num_keypoints(category: dict[str, Any]) -> int | None:
    """Return the number of keypoints of a category, if the file says it."""
    names = category.get("keypoints")
    return len(names) if isinstance(names, list) and names else None


def _read_rle(rle: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    width, height = size
    counts, rle_size = rle.get("counts"), rle.get("size")
    if rle_size != [height, width]:
        raise _fault(f"its RLE has the size {show(rle_size)}, not {[height, width]}; correct it")
    try:
        runs = list(_decompress(counts)) if isinstance(counts, str) else counts
        # pycocotools' C code believes what it is given
        is_valid = sum(runs) == width * height and all(type(n) is int and n >= 0 for n in runs)
    except (TypeError, ValueError, OverflowError):
        is_valid = False
    if not is_valid:
        raise _fault(f"run lengths {show(counts)} do not cover the image; correct them")
    return coco_mask.frPyObjects({"size": rle_size, "counts": runs}, int(height), int(width))


def _decompress(text: str) -> Iterator[int]:
    """Decode COCO's run lengths: 5 bits per character, and differences to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError(character)
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            yield runs[-1]
            value = shift = 0
    if shift:
        raise ValueError("it ends within a number")


def _check_inside(points: Iterator[tuple[float, float]], size: tuple[int, int], what: str) -> None:
    for x, y in points:
        if not (-1 <= x <= size[0] + 1 and -1 <= y <= size[1] + 1):
            message = f"{what} leaves the image of {size[0]} x {size[1]} pixels at ({x:g}, {y:g})"
            raise _fault(f"{message}; correct it")


def _fault(message: str) -> DatasetError:
    return DatasetError(message, "bad shape")
