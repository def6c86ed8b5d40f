"""Proposals without learning: those of OpenCV, and the baselines of Figure 3 of the paper.

Each method is a function (image, num, rng) -> boxes (K, 4), float64, x0, y0, x1, y1 in pixels,
best first, K <= num; ``image`` is (H, W, 3) uint8 in BGR. The baselines follow Hosang et al.,
"What makes for effective detection proposals?", TPAMI 2016, Sec. 2.3. They have no order: theirs is
random, so that the first ones are a fair sample.
"""

import contextlib
import ctypes
import functools
import glob
import os
import tempfile
import zlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from numpy.random import Generator
from tqdm import tqdm

from .ground_truth import load_ground_truth

CONTRIB = "opencv-contrib-python-headless"


Method = Callable[[np.ndarray, int, Generator], np.ndarray]


class MethodError(ValueError):
    """A method that cannot run here; the message says what it needs."""


def sliding_window(image: np.ndarray, num: int, rng: Generator) -> np.ndarray:
    """Lay windows evenly over the image, equally many of each of 5 sizes and 3 aspect ratios."""
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


def box_statistics(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Describe boxes independently of their image; :func:`boxes_of_statistics` is the inverse.

    Args:
        boxes: (G, 4) objects.
        sizes: (G, 2) width and height of their images.

    Returns:
        (G, 4) centre x and y, square root of the area, each as a fraction of the image's, and
        logarithm of width over height.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes
    scale = np.sqrt(sides.prod(axis=1) / sizes.prod(axis=1))
    return np.column_stack([centre, scale, np.log(sides[:, 0] / sides[:, 1])])


def boxes_of_statistics(statistics: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return boxes (K, 4) cut to an image of ``size`` (width, height), without those outside."""
    side = np.maximum(statistics[:, 2], 0) * np.sqrt(np.prod(size))
    half = side[:, None] * np.exp(statistics[:, 3:] * [0.5, -0.5]) / 2
    centre = statistics[:, :2] * size
    boxes = np.hstack([centre - half, centre + half])
    boxes = np.clip(boxes, 0, np.tile(size, 2))
    return boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)]


def uniform(image: np.ndarray, num: int, rng: Generator, objects: np.ndarray) -> np.ndarray:
    """Draw centre, size and ratio evenly in the range of ``objects``, less 0.5% at each end."""
    low, high = np.quantile(objects, (0.005, 0.995), axis=0)
    return _sample(image, num, lambda count: rng.uniform(low, high, (count, 4)))


def gaussian(image: np.ndarray, num: int, rng: Generator, objects: np.ndarray) -> np.ndarray:
    """Draw centre, size and ratio from the Gaussian with mean and covariance of ``objects``."""
    mean, covariance = objects.mean(axis=0), np.cov(objects, rowvar=False)
    return _sample(image, num, lambda count: rng.multivariate_normal(mean, covariance, count))


def _sample(image: np.ndarray, num: int, draw: Callable[[int], np.ndarray]) -> np.ndarray:
    """Return ``num`` boxes of drawn statistics; where most fall outside of the image, fewer."""
    size = np.array([image.shape[1], image.shape[0]], float)
    return boxes_of_statistics(draw(2 * num), size)[:num]


def superpixels(image: np.ndarray, num: int, rng: Generator) -> np.ndarray:
    """Return the boxes of Felzenszwalb's superpixels at four granularities."""
    segmentation = _contrib("ximgproc").segmentation
    boxes = []
    for k in (50, 150, 500, 1500):
        labels = segmentation.createGraphSegmentation(0.8, k, 50).processImage(image)
        boxes += [_bounding_box(labels == label) for label in np.unique(labels)]
    return rng.permutation(np.unique(boxes, axis=0))[:num].astype(float)


def _bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def selective_search(image: np.ndarray, num: int, rng: Generator) -> np.ndarray:
    """Run Uijlings et al., "Selective Search for Object Recognition", IJCV 2013; fast mode."""
    # OpenCV ranks with rand() of the C library, which setRNGSeed does not reach.
    with contextlib.suppress(OSError, TypeError, AttributeError):  # where there is no such library
        ctypes.CDLL(None).srand(int(rng.integers(2**31)))
    search = _contrib("ximgproc").segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    search.switchToSelectiveSearchFast()
    return _from_xywh(search.process()[:num])


def edge_boxes(image: np.ndarray, num: int, rng: Generator, model: str | None = None) -> np.ndarray:
    """Run Zitnick and Dollar, "Edge Boxes: Locating Object Proposals from Edges", ECCV 2014.

    Args:
        model: a file of OpenCV's structured edge detection; without one, the edges are those of
            the smoothed image's gradient, thinned by Canny's detector.
    """
    ximgproc = _contrib("ximgproc")
    if model is None:
        edges, orientations = gradient_edges(image)
    else:
        detector = ximgproc.createStructuredEdgeDetection(model)
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        edges = detector.detectEdges(rgb)
        orientations = detector.computeOrientation(edges)
        edges = detector.edgesNms(edges, orientations)
    boxes, _ = ximgproc.createEdgeBoxes(maxBoxes=num).getBoundingBoxes(edges, orientations)
    return _from_xywh(boxes)


def gradient_edges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find edges without a trained model.

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


def bing(image: np.ndarray, num: int, rng: Generator, model: str) -> np.ndarray:
    """Run Cheng et al., "BING: Binarized Normed Gradients for Objectness Estimation", CVPR 2014.

    Args:
        model: the folder ObjectnessTrainedModel of OpenCV's contrib sources.
    """
    if not glob.glob(os.path.join(model, "*.wS1.yml.gz")):
        raise MethodError(
            f"{model}: no trained model of BING (*.wS1.yml.gz) in this folder; it is "
            "modules/saliency/samples/ObjectnessTrainedModel of OpenCV's contrib sources"
        )
    detector = _contrib("saliency").ObjectnessBING_create()
    detector.setTrainingPath(model)
    with tempfile.TemporaryDirectory() as results:
        detector.setBBResDir(results)
        success, boxes = detector.computeSaliency(image)
    boxes = np.reshape(boxes, (-1, 4))[:num].astype(float) if success else np.empty((0, 4))
    return boxes - [1, 1, 0, 0]  # its first pixel is 1


def _from_xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = np.reshape(boxes, (-1, 4)).astype(float)
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def _contrib(module: str) -> ModuleType:
    """Return a module of OpenCV's contrib part."""
    if not hasattr(cv2, module):
        raise MethodError(
            f"this OpenCV ({cv2.__version__}) has no cv2.{module}, a contrib module. Install "
            f"{CONTRIB}: remove every other opencv-* package first, since all own cv2"
        )
    return getattr(cv2, module)


def object_statistics(dataset_name: str) -> np.ndarray:
    """Return :func:`box_statistics` of the objects of a dataset."""
    ground_truth = load_ground_truth(dataset_name)
    records = DatasetCatalog.get(dataset_name)
    sizes = np.array([(record["width"], record["height"]) for record in records], float)
    usable = (ground_truth.boxes[:, 2:] > ground_truth.boxes[:, :2]).all(axis=1)
    return box_statistics(ground_truth.boxes[usable], sizes[ground_truth.images[usable]])


def build_method(name: str, objects: np.ndarray | None = None, model: str | None = None) -> Method:
    """Return (image, num, rng) -> boxes, which can be pickled.

    Args:
        name: in METHODS.
        objects: for the methods in FITTED, (G, 4) of :func:`object_statistics`.
        model: file for edge_boxes (optional), folder for bing.

    Raises:
        MethodError: the name is unknown, or something that the method needs is not given.
    """
    if name not in METHODS:
        raise MethodError(f"method {name!r} is unknown; it must be one of {', '.join(METHODS)}")
    method = METHODS[name]
    if name in FITTED:
        if objects is None or len(objects) < 2:
            raise MethodError(f"{name} needs a training set with objects to take their sizes from")
        return functools.partial(method, objects=objects)
    if name == "bing" and not model:
        raise MethodError("bing needs the folder of its trained model")
    if name in ("bing", "edge_boxes"):
        return functools.partial(method, model=model)
    return method


METHODS = {
    "sliding_window": sliding_window,
    "uniform": uniform,
    "gaussian": gaussian,
    "superpixels": superpixels,
    "selective_search": selective_search,
    "edge_boxes": edge_boxes,
    "bing": bing,
}
FITTED = ("uniform", "gaussian")


class _ProposeInImage:
    """Record -> (image id, boxes); the same on any number of processes."""

    def __init__(self, method: Method, num: int):
        self.method, self.num = method, num

    def __call__(self, record: dict[str, Any]) -> tuple[Hashable, np.ndarray]:
        cv2.setNumThreads(1)  # the processes share the cores
        image = np.ascontiguousarray(read_image(record["file_name"], "BGR"))
        rng = np.random.default_rng(zlib.crc32(str(record["image_id"]).encode()))
        return record["image_id"], self.method(image, self.num, rng).astype(np.float32)


def propose_in_images(
    records: Sequence[dict[str, Any]], method: Method, num: int, processes: int
) -> dict[Hashable, np.ndarray]:
    """Return image id -> boxes (K, 4), K <= num, in the order of the records.

    Args:
        records: of a dataset.
        processes: how many to use.

    Raises:
        MethodError: the method cannot run here, or one of several processes died.
    """
    if min(num, processes) < 1:
        raise MethodError(f"--num {num} and --processes {processes} must be at least 1")
    propose = _ProposeInImage(method, num)
    if processes == 1:
        return dict(map(propose, tqdm(records, unit="image")))
    try:
        with ProcessPoolExecutor(processes) as executor:
            boxes = executor.map(propose, records, chunksize=4)
            return dict(tqdm(boxes, total=len(records), unit="image"))
    except BrokenProcessPool:
        raise MethodError(
            f"one of {processes} processes died, perhaps for lack of memory. Try fewer "
            "--processes: with 1, the error shows itself"
        ) from None
    except MethodError as error:
        raise error.with_traceback(None) from None  # in place of the other process's
