"""
Proposals without learning: those of OpenCV, and the baselines of Figure 3 of the paper.

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

import cv2
import numpy as np

CONTRIB = "opencv-contrib-python-headless"


class MethodError(RuntimeError):
    """A method that cannot run here; the message says what it needs."""


def sliding_window(image, num, rng):
    """Windows evenly over the image, equally many of each of 5 sizes and 3 aspect ratios."""
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


def box_statistics(boxes, sizes):
    """
    Args:
        boxes (ndarray): (G, 4) objects. sizes (ndarray): (G, 2) width and height of their images.

    Returns:
        ndarray: (G, 4) centre x and y, square root of the area, each as a fraction of the image's,
        and logarithm of width over height. :func:`boxes_of_statistics` is the inverse.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes
    scale = np.sqrt(sides.prod(axis=1) / sizes.prod(axis=1))
    return np.column_stack([centre, scale, np.log(sides[:, 0] / sides[:, 1])])


def boxes_of_statistics(statistics, size):
    """Boxes (K, 4) in an image of ``size`` (width, height), cut to it; those left, see above."""
    side = np.maximum(statistics[:, 2], 0) * np.sqrt(np.prod(size))
    half = side[:, None] * np.exp(statistics[:, 3:] * [0.5, -0.5]) / 2
    centre = statistics[:, :2] * size
    boxes = np.hstack([centre - half, centre + half])
    boxes = np.clip(boxes, 0, np.tile(size, 2))
    return boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)]


def uniform(image, num, rng, objects):
    """Centre, size and aspect ratio uniform in the range of ``objects``, less 0.5% at each end."""
    low, high = np.quantile(objects, (0.005, 0.995), axis=0)
    return _sample(image, num, lambda count: rng.uniform(low, high, (count, 4)))


def gaussian(image, num, rng, objects):
    """Centre, size and aspect ratio from the Gaussian of mean and covariance of ``objects``."""
    mean, covariance = objects.mean(axis=0), np.cov(objects, rowvar=False)
    return _sample(image, num, lambda count: rng.multivariate_normal(mean, covariance, count))


def _sample(image, num, draw):
    """``num`` boxes of drawn statistics; where most fall outside of the image, fewer."""
    size = np.array([image.shape[1], image.shape[0]], float)
    return boxes_of_statistics(draw(2 * num), size)[:num]


def superpixels(image, num, rng):
    """Boxes of Felzenszwalb's superpixels at four granularities."""
    segmentation = _contrib("ximgproc").segmentation
    boxes = []
    for k in (50, 150, 500, 1500):
        labels = segmentation.createGraphSegmentation(0.8, k, 50).processImage(image)
        boxes += [_bounding_box(labels == label) for label in np.unique(labels)]
    return rng.permutation(np.unique(boxes, axis=0))[:num].astype(float)


def _bounding_box(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def selective_search(image, num, rng):
    """Uijlings et al., "Selective Search for Object Recognition", IJCV 2013; fast mode."""
    # OpenCV ranks with rand() of the C library, which setRNGSeed does not reach.
    with contextlib.suppress(OSError, TypeError, AttributeError):  # where there is no such library
        ctypes.CDLL(None).srand(int(rng.integers(2**31)))
    search = _contrib("ximgproc").segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    search.switchToSelectiveSearchFast()
    return _from_xywh(search.process()[:num])


def edge_boxes(image, num, rng, model=None):
    """
    Zitnick and Dollar, "Edge Boxes: Locating Object Proposals from Edges", ECCV 2014.

    Args:
        model (str): a file of OpenCV's structured edge detection; without one, the edges are
            those of the smoothed image's gradient, thinned by Canny's detector.
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


def gradient_edges(image):
    """
    Returns:
        ndarray, ndarray: (H, W) float32 strength in [0, 1], 0 off thin edges; and the direction
        across the edge in [0, pi), 0 for a vertical edge.
    """
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 1.5)
    dx, dy = (cv2.Sobel(gray, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    strength = np.hypot(dx, dy)
    # Canny keeps the ridges of the same gradient; low thresholds, since strength is kept.
    edges = np.where(cv2.Canny(gray, 10, 30) > 0, strength, 0)
    orientations = np.mod(np.arctan2(dy, dx), np.float32(np.pi))
    return edges / max(edges.max(), 1e-6), orientations


def bing(image, num, rng, model):
    """
    Cheng et al., "BING: Binarized Normed Gradients for Objectness Estimation", CVPR 2014.

    Args:
        model (str): the folder ObjectnessTrainedModel of OpenCV's contrib sources.
    """
    if not glob.glob(os.path.join(model, "*.wS1.yml.gz")):
        raise MethodError(
            f"{model}: there is no trained model of BING (*.wS1.yml.gz); it is the folder "
            "modules/saliency/samples/ObjectnessTrainedModel of OpenCV's contrib sources"
        )
    detector = _contrib("saliency").ObjectnessBING_create()
    detector.setTrainingPath(model)
    with tempfile.TemporaryDirectory() as results:
        detector.setBBResDir(results)
        found, boxes = detector.computeSaliency(image)
    boxes = np.reshape(boxes, (-1, 4))[:num].astype(float) if found else np.empty((0, 4))
    return boxes - [1, 1, 0, 0]  # its first pixel is 1


def _from_xywh(boxes):
    boxes = np.reshape(boxes, (-1, 4)).astype(float)
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def _contrib(module):
    """A module of OpenCV's contrib part."""
    if not hasattr(cv2, module):
        raise MethodError(
            f"this OpenCV ({cv2.__version__}) has no cv2.{module}, a contrib module. Install "
            f"{CONTRIB}: remove every other opencv-* package first, since all own cv2"
        )
    return getattr(cv2, module)


def build_method(name, objects=None, model=None):
    """
    Args:
        name (str): in METHODS.
        objects (ndarray): for the methods in FITTED, (G, 4) of :func:`box_statistics`.
        model (str): file for edge_boxes (optional), folder for bing.

    Returns:
        callable: (image, num, rng) -> boxes; can be pickled.

    Raises:
        MethodError: if something that the method needs is not given.
    """
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
