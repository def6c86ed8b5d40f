"""Recall of class-agnostic proposals: how many objects does some proposal cover?

Shape shorthand in this module:

    K: proposals of one image, best score first
    G: annotated objects, of one image or of the whole dataset
    M: pairs of an object and a proposal
    B: budgets; a budget is the number of best proposals that count
    Z: size ranges
    T: IoU thresholds

Most pairs of an object and a proposal hardly overlap and decide nothing: ``close_pairs`` finds the
few that do in all images of a block at once, and everything after it works on flat arrays of these
pairs. That, and matching one by one only where two objects want the same proposal, is why an
evaluation takes seconds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Areas in square pixels of the original image, lower bound included, upper one not (Table 2 of
# the paper: small < 32^2 <= medium < 96^2 <= large).
SIZE_RANGES = {
    "S": (0.0, 32.0**2),
    "M": (32.0**2, 96.0**2),
    "L": (96.0**2, np.inf),
    "all": (0.0, np.inf),
}

# The thresholds of AR: 0.5, 0.55, ..., 0.95. Rounded, so that an IoU of exactly 0.7 counts at 0.7.
AR_THRESHOLDS = np.round(np.arange(0.5, 1.0, 0.05), 2)


def in_size_ranges(areas: np.ndarray) -> np.ndarray:
    """Return which of the areas (G,) lies in which of SIZE_RANGES: (Z, G) bool."""
    bounds = np.array(list(SIZE_RANGES.values()))
    return (areas >= bounds[:, :1]) & (areas < bounds[:, 1:])


class Pairs(NamedTuple):
    """M pairs of an object and a proposal of one image that overlap, by object, then proposal."""

    objects: np.ndarray  # (M,) index in [0, G)
    proposals: np.ndarray  # (M,) index in the image's proposals, 0 for the best score
    iou: np.ndarray  # (M,)


def close_pairs(
    objects: Sequence[np.ndarray], proposals: Sequence[np.ndarray], floor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pairs that may have an IoU of at least ``floor``, in several images at once.

    An operation is done for the first object of every image, then for the second of every image
    that has one, and so on: as many operations as the fullest image has objects, instead of some
    for each image.

    Args:
        objects: (G, 4) of each of N images.
        proposals: (K, 4) of each of the images.

    Returns:
        indices (M,) of images, objects in the image, and proposals, in that order. In float32 and
        a little generous: compute the exact IoU of these pairs.
    """
    num_objects = np.array([len(of_image) for of_image in objects])
    # The images that have a g-th object are then the first rows: slices, no copies
    fullest_first = np.argsort(-num_objects, kind="stable")
    stacked = np.zeros((len(proposals), max(map(len, proposals), default=0), 4), np.float32)
    for row, n in zip(stacked, fullest_first):
        row[: len(proposals[n])] = proposals[n]
    # Coordinates first, so that each is one contiguous array: (N, K), padded with zeros
    x0, y0, x1, y1 = np.ascontiguousarray(stacked.transpose(2, 0, 1))
    # IoU = I / (A + B - I) >= f exactly where I >= f / (1 + f) * (A + B): no division, and the
    # proposals' part of the right side is the same for all objects. 0.999 outweighs the rounding
    # of float32; the exact IoU decides later
    share = np.float32(0.999 * floor / (1 + floor))
    # With 0 on the right side, two points, or the padding, would count as close
    areas = share * (x1 - x0) * (y1 - y0) + np.float32(1e-30)
    close = [np.empty((3, 0), int)]  # images, objects, proposals
    for g in range(num_objects.max(initial=0)):
        rows = int((num_objects > g).sum())
        ranked = np.stack([objects[n][g] for n in fullest_first[:rows]]).astype(np.float32)
        a0, b0, a1, b1 = ranked.T[:, :, None]  # (rows, 1) each
        across = np.minimum(x1[:rows], a1) - np.maximum(x0[:rows], a0)
        down = np.minimum(y1[:rows], b1) - np.maximum(y0[:rows], b0)
        # One factor of the intersection may stay negative: the product is then not positive
        across *= np.maximum(down, 0, out=down)
        is_close = across >= areas[:rows] + share * (a1 - a0) * (b1 - b0)
        row, column = np.divmod(np.flatnonzero(is_close), max(is_close.shape[1], 1))
        close.append(np.stack([fullest_first[row], np.full(len(row), g), column]))
    images, ranks, columns = np.concatenate(close, axis=1)
    # Objects and proposals are already in order within an image, and a stable sort keeps that
    by_image = np.argsort(images, kind="stable")
    return images[by_image], ranks[by_image], columns[by_image]


def covered_overlaps(
    pairs: Pairs, images: np.ndarray, budgets: Sequence[int], in_range: np.ndarray
) -> np.ndarray:
    """Find the IoU with which each object is covered, at several budgets.

    Matching is one-to-one and greedy: the pair of largest IoU is matched first, then the largest
    among the proposals and objects that are left, as in Detectron2's COCO evaluator. The objects of
    one size range compete among themselves.

    Leaving out all pairs below some IoU changes nothing above it, since larger ones go first.

    Args:
        images: (G,) int, ascending: where each object is.
        budgets: B positive numbers of proposals.
        in_range: (Z, G) bool, which objects belong to which size range.

    Returns:
        (B, Z, G), 0 for a miss, nan where the object is not in the range.
    """
    budgets = np.asarray(budgets)
    best_iou, winners = _best_at_budgets(pairs, len(images), budgets)
    overlaps = np.where(in_range, best_iou[:, None], np.nan)
    # If each object of an image has another best proposal, each gets it, in any range: greedy
    # matching is only needed where two objects share theirs
    for b, n in _contended(winners, images):
        members = slice(*np.searchsorted(images, (n, n + 1)))
        of_image = slice(*np.searchsorted(pairs.objects, (members.start, members.stop)))
        close = Pairs(*(array[of_image][pairs.proposals[of_image] < budgets[b]] for array in pairs))
        for of_size, counted in zip(overlaps[b], in_range[:, close.objects]):
            match_greedily(Pairs(*(array[counted] for array in close)), of_size)
    return overlaps


def _best_at_budgets(
    pairs: Pairs, num_objects: int, budgets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the best IoU of each object and the proposal that has it, (B, G) each; 0, -1 if none."""
    largest = int(budgets.max())
    objects, proposals, best = (array[pairs.proposals < largest] for array in pairs)
    # By object, then by rank of the proposal: the running maximum is the best IoU at a budget
    bounds = np.searchsorted(objects, np.arange(num_objects + 1)).tolist()
    for start, end in zip(bounds, bounds[1:]):
        np.maximum.accumulate(best[start:end], out=best[start:end])
    # What is best for an object changes only at these pairs
    better = np.ones(len(best), bool)
    better[1:] = (best[1:] > best[:-1]) | (objects[1:] != objects[:-1])
    # In front of each object's own, a pair with proposal -1: the answer if none is in the budget
    every = np.arange(num_objects)
    first = np.searchsorted(objects[better], every)
    objects = np.insert(objects[better], first, every)
    proposals = np.insert(proposals[better], first, -1)
    best = np.insert(best[better], first, 0.0)

    # One ascending key for (object, proposal) finds, for all objects and budgets in one search,
    # the last pair of the object whose proposal is within the budget
    position = objects * (largest + 1) + proposals
    at = np.searchsorted(position, every * (largest + 1) + budgets[:, None]) - 1
    return best[at], proposals[at]


def _contended(winners: np.ndarray, images: np.ndarray) -> list[tuple[int, int]]:
    """Find where a proposal is best for two objects: (b, n) of budgets and images.

    Args:
        winners: (B, G) the best proposal of each object, -1 for none.
        images: (G,) where each object is.
    """
    b, g = np.nonzero(winners >= 0)
    # One number for (budget, image, proposal); what occurs twice is wanted by two objects
    num_images, stride = images.max(initial=0) + 1, winners.max(initial=0) + 1
    claims = np.sort((b * num_images + images[g]) * stride + winners[b, g])
    twice = np.unique(claims[1:][claims[1:] == claims[:-1]] // stride)
    return np.stack([twice // num_images, twice % num_images], axis=1).tolist()


def match_greedily(pairs: Pairs, overlaps: np.ndarray) -> None:
    """Match the objects and proposals of one image one to one, largest IoU first.

    Args:
        overlaps: (G,) is set to the IoU of each object with its own proposal; 0 without one.
    """
    overlaps[pairs.objects] = 0
    objects, proposals = set(), set()  # that are matched
    for m in np.argsort(-pairs.iou, kind="stable"):
        g, k = pairs.objects[m], pairs.proposals[m]
        if g not in objects and k not in proposals:
            overlaps[g] = pairs.iou[m]
            objects.add(g)
            proposals.add(k)


def recall(overlaps: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Return the share of the counted objects that are covered with at least each IoU.

    Args:
        overlaps: (..., G) from :func:`covered_overlaps`; nan where an object is not counted.
        thresholds: T IoU thresholds, none below the ``floor`` of the overlaps.

    Returns:
        (..., T), nan where no object is counted.
    """
    # A loop over the few thresholds: one comparison with all would need an array of (..., G, T)
    covered = np.stack([(overlaps >= t).sum(axis=-1) for t in thresholds], axis=-1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan
        return covered / np.count_nonzero(~np.isnan(overlaps), axis=-1)[..., None]


def average_recall(overlaps: np.ndarray) -> np.ndarray:
    """Return AR, the mean of :func:`recall` over AR_THRESHOLDS: (..., G) -> (...)."""
    return recall(overlaps, AR_THRESHOLDS).mean(axis=-1)
