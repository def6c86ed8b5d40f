"""Proposals without learning: OpenCV's Selective Search and Edge Boxes, and sliding windows.

Each method is a function (image, num, rng) -> boxes (K, 4), float64, x0, y0, x1, y1 in pixels,
best first, K <= num; ``image`` is (H, W, 3) uint8 in BGR.
"""

import contextlib
import ctypes
import functools
import zlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
import numpy as np
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from numpy.random import Generator
from tqdm import tqdm


def sliding_window(image: np.ndarray, num: int, rng: Generator) -> np.ndarray:
    """Lay windows evenly over the image, equally many of each of 5 sizes and 3 aspect ratios.

    A baseline of Hosang et al., "What makes for effective detection proposals?", TPAMI 2016, Sec.
    2.3. Windows have no order: theirs is random, so that the first ones are a fair sample.
    """
    height, width = image.shape[:2]
    windows = []
    per_side = max(int(np.sqrt(num / 15)), 1)
    for fraction in (0.1, 0.2, 0.35, 0.55, 0.8):  # of the square root of the image's area
        for ratio in (0.5, 1.0, 2.0):  # width over height
            side = fraction * np.sqrt(height * width)
            w, h = min(side * np.sqrt(ratio), width), min(side / np.sqrt(ratio), height)
            # Half a step inside either border: at the very edge, a window rarely fits an object.
            at = (np.arange(per_side) + 0.5) / per_side
            x, y = (grid.ravel() for grid in np.meshgrid(at * (width - w), at * (height - h)))
            windows.append(np.stack([x, y, x + w, y + h], axis=1))
    # Windows as wide or as high as the image cannot move, and are the same several times.
    return rng.permutation(np.unique(np.concatenate(windows), axis=0))[:num]


def selective_search(image: np.ndarray, num: int, rng: Generator) -> np.ndarray:
    """Run Uijlings et al., "Selective Search for Object Recognition", IJCV 2013; fast mode."""
    # OpenCV ranks with rand() of the C library, which setRNGSeed does not reach.
    with contextlib.suppress(OSError, TypeError, AttributeError):  # where there is no such library
        ctypes.CDLL(None).srand(int(rng.integers(2**31)))
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    search.switchToSelectiveSearchFast()
    return _from_xywh(search.process()[:num])


def edge_boxes(image: np.ndarray, num: int, rng: Generator) -> np.ndarray:
    """Run Zitnick and Dollar, "Edge Boxes: Locating Object Proposals from Edges", ECCV 2014.

    The edges are those of :func:`gradient_edges`, not of a trained model.
    """
    detector = cv2.ximgproc.createEdgeBoxes(maxBoxes=num)
    return _from_xywh(detector.getBoundingBoxes(*gradient_edges(image))[0])


def gradient_edges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the edges of the smoothed image's gradient, thinned by Canny's detector.

    Returns:
        (H, W) float32 strength in [0, 1], 0 off thin edges; and the direction across the edge in
        [0, pi), 0 for a vertical edge.
    """
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 1.5)
    dx, dy = (cv2.Sobel(gray, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    strength = np.hypot(dx, dy)
    # Canny keeps the ridges of the same gradient; low thresholds, since strength is kept.
    edges = np.where(cv2.Canny(gray, 10, 30) > 0, strength, 0)
    orientations = np.mod(np.arctan2(dy, dx), np.float32(np.pi))
    return edges / max(edges.max(), 1e-6), orientations


def _from_xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = np.reshape(boxes, (-1, 4)).astype(float)
    return BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)


METHODS = {method.__name__: method for method in (selective_search, edge_boxes, sliding_window)}


def propose_in_images(
    records: Sequence[dict[str, Any]], name: str, num: int, processes: int
) -> dict[Hashable, np.ndarray]:
    """Return image id -> boxes (K, 4), K <= num, in the order of the records.

    Args:
        name: in METHODS.
        processes: how many to use; the boxes are the same on any number.

    Raises:
        ValueError: the method is unknown or cannot run here, or one of several processes died.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} is unknown; it must be one of {', '.join(METHODS)}")
    if name in ("selective_search", "edge_boxes") and not hasattr(cv2, "ximgproc"):
        remedy = "replace all opencv-* packages (all own cv2) by opencv-contrib-python-headless"
        raise ValueError(f"this OpenCV ({cv2.__version__}) has no cv2.ximgproc; {remedy}")
    if min(num, processes) < 1:
        raise ValueError(f"--num {num} and --processes {processes} must be at least 1")
    propose = functools.partial(_propose, METHODS[name], num)
    ids = [record["image_id"] for record in records]
    progress = functools.partial(tqdm, total=len(ids), unit="image")
    if processes == 1:
        return dict(zip(ids, progress(map(propose, records))))
    try:
        with ProcessPoolExecutor(processes) as executor:
            return dict(zip(ids, progress(executor.map(propose, records, chunksize=4))))
    except BrokenProcessPool:
        message = f"one of {processes} processes died, perhaps for lack of memory"
        raise ValueError(f"{message}; try fewer --processes (1 shows the error)") from None


def _propose(method: Callable[..., np.ndarray], num: int, record: dict[str, Any]) -> np.ndarray:
    cv2.setNumThreads(1)  # the processes share the cores
    image = np.ascontiguousarray(read_image(record["file_name"], "BGR"))
    rng = np.random.default_rng(zlib.crc32(str(record["image_id"]).encode()))
    return method(image, num, rng).astype(np.float32)
