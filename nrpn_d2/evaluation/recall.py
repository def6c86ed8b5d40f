"""
Recall of class-agnostic proposals: how many objects does some proposal cover?

Shape shorthand in this module:

    K: proposals of one image, best score first
    G: annotated objects, of one image or of the whole dataset
    M: pairs of an object and a proposal
    B: budgets; a budget is the number of best proposals that count
    Z: size ranges
    T: IoU thresholds
"""

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


def in_size_ranges(areas, size_ranges=SIZE_RANGES):
    """Which of the areas (G,) lies in which range: (Z, G) bool."""
    bounds = np.array(list(size_ranges.values()))
    return (areas >= bounds[:, :1]) & (areas < bounds[:, 1:])


class Pairs(NamedTuple):
    """M pairs of an object and a proposal of one image that overlap, by object, then proposal."""

    objects: np.ndarray  # (M,) index in [0, G)
    proposals: np.ndarray  # (M,) index in the image's proposals, 0 for the best score
    iou: np.ndarray  # (M,)


def side_by_side(boxes):
    """Boxes of N images, (K, 4) each -> (4, N, largest K) float32, zeros where there is no box."""
    stacked = np.zeros((len(boxes), max(map(len, boxes), default=0), 4), np.float32)
    for row, of_image in zip(stacked, boxes):
        row[: len(of_image)] = of_image
    return np.ascontiguousarray(stacked.transpose(2, 0, 1))


def close_pairs(objects, proposals, floor):
    """
    Find the pairs that may have an IoU of at least ``floor``, in several images at once.

    An operation is done for the first object of every image, then for the second of every image
    that has one, and so on: as many operations as the fullest image has objects.

    Args:
        objects (list[ndarray]): (G, 4) of each of N images.
        proposals (ndarray): (4, N, K), see :func:`side_by_side`.

    Returns:
        ndarray, ndarray, ndarray: indices (M,) of images, objects in the image, and proposals, in
        that order. In float32 and a little generous: compute the exact IoU of these pairs.
    """
    num_objects = np.array([len(of_image) for of_image in objects])
    fullest_first = np.argsort(-num_objects, kind="stable")
    x0, y0, x1, y1 = proposals[:, fullest_first]  # (N, K) each
    # IoU >= f exactly where intersection >= f / (1 + f) * (sum of the areas).
    share = np.float32(0.999 * floor / (1 + floor))
    areas = share * (x1 - x0) * (y1 - y0) + np.float32(1e-30)  # of two points 0 is not enough
    found = [np.empty((3, 0), int)]
    for g in range(num_objects.max(initial=0)):
        having = int((num_objects > g).sum())
        ranked = np.stack([objects[n][g] for n in fullest_first[:having]]).astype(np.float32)
        a0, b0, a1, b1 = ranked.T[:, :, None]  # (having, 1) each
        across = np.minimum(x1[:having], a1) - np.maximum(x0[:having], a0)
        down = np.minimum(y1[:having], b1) - np.maximum(y0[:having], b0)
        across *= np.maximum(down, 0, out=down)
        close = across >= areas[:having] + share * (a1 - a0) * (b1 - b0)
        rows, columns = np.divmod(np.flatnonzero(close), max(close.shape[1], 1))
        found.append(np.stack([fullest_first[rows], np.full(len(rows), g), columns]))
    images, ranks, columns = np.concatenate(found, axis=1)
    by_image = np.argsort(images, kind="stable")
    return images[by_image], ranks[by_image], columns[by_image]


def covered_overlaps(pairs, images, budgets, in_range, matching="greedy"):
    """
    The IoU with which each object is covered, at several budgets.

    Greedy matching is one-to-one: the pair of largest IoU is matched first, then the largest among
    the proposals and objects that are left, as in Detectron2's COCO evaluator. The objects of one
    size range compete among themselves. With best-overlap matching, a proposal may cover any
    number of objects.

    Leaving out all pairs below some IoU changes nothing above it, since larger ones go first.

    Args:
        pairs (Pairs): of all images.
        images (ndarray): (G,) int, ascending: where each object is.
        budgets (Sequence[int]): B positive numbers of proposals.
        in_range (ndarray): (Z, G) bool, which objects belong to which size range.
        matching (str): "greedy" or "best".

    Returns:
        ndarray: (B, Z, G), 0 for a miss, nan where the object is not in the range.
    """
    if matching not in ("greedy", "best"):
        raise ValueError(f"matching must be 'greedy' or 'best', got {matching!r}")
    budgets = np.asarray(budgets)
    if budgets.size == 0 or budgets.min() < 1:
        raise ValueError(f"budgets must be positive numbers of proposals, got {budgets.tolist()}")
    covered, winners = _best_at_budgets(pairs, len(images), budgets)
    overlaps = np.where(in_range, covered[:, None], np.nan)
    if matching == "best":
        return overlaps
    for b, n in _contended(winners, images):
        members = slice(*np.searchsorted(images, (n, n + 1)))
        iou = _dense(pairs, members, budgets[b])
        for z, of_range in enumerate(in_range[:, members]):
            if of_range.sum() > 1:
                overlaps[b, z, members][of_range] = match_greedily(iou[of_range])
    return overlaps


def _best_at_budgets(pairs, num_objects, budgets):
    """The best IoU of each object and the proposal that has it, (B, G) each; 0 and -1 if none."""
    largest = int(budgets.max())
    objects, proposals, best = (array[pairs.proposals < largest] for array in pairs)
    bounds = np.searchsorted(objects, np.arange(num_objects + 1)).tolist()
    for start, end in zip(bounds, bounds[1:]):
        np.maximum.accumulate(best[start:end], out=best[start:end])
    # What is best for an object changes only at these pairs.
    better = np.ones(len(best), bool)
    better[1:] = (best[1:] > best[:-1]) | (objects[1:] != objects[:-1])
    # One pair of no proposal in front of each object's own: the answer where none is in the budget.
    every = np.arange(num_objects)
    first = np.searchsorted(objects[better], every)
    objects = np.insert(objects[better], first, every)
    proposals = np.insert(proposals[better], first, -1)
    best = np.insert(best[better], first, 0.0)

    position = objects * (largest + 1) + proposals
    at = np.searchsorted(position, every * (largest + 1) + budgets[:, None]) - 1
    return best[at], proposals[at]


def _contended(winners, images):
    """The budgets b and images n in which a proposal is best for two objects; list of (b, n)."""
    b, g = np.nonzero(winners >= 0)
    num_images, stride = images.max(initial=0) + 1, winners.max(initial=0) + 1
    claims = np.sort((b * num_images + images[g]) * stride + winners[b, g])
    twice = np.unique(claims[1:][claims[1:] == claims[:-1]] // stride)
    return np.stack([twice // num_images, twice % num_images], axis=1).tolist()


def _dense(pairs, members, budget):
    """The IoU matrix of some objects (a slice) and all proposals in the budget that are close."""
    of_image = slice(*np.searchsorted(pairs.objects, (members.start, members.stop)))
    objects, proposals, iou = (array[of_image] for array in pairs)
    within = proposals < budget
    _, column = np.unique(proposals[within], return_inverse=True)
    matrix = np.zeros((members.stop - members.start, column.max(initial=-1) + 1))
    matrix[objects[within] - members.start, column] = iou[within]
    return matrix


def match_greedily(iou):
    """
    One-to-one matching, largest IoU first.

    Args:
        iou (ndarray): (G, K)

    Returns:
        ndarray: (G,) the IoU of each object with its own proposal; 0 without one.
    """
    iou = iou.copy()
    overlaps = np.zeros(len(iou))
    for _ in range(min(iou.shape)):
        g, k = np.unravel_index(iou.argmax(), iou.shape)
        if iou[g, k] <= 0:
            break
        overlaps[g] = iou[g, k]
        iou[g, :] = 0
        iou[:, k] = 0
    return overlaps


def recall(overlaps, thresholds):
    """
    Args:
        overlaps (ndarray): (..., G) from :func:`covered_overlaps`; nan where an object is not
            counted.
        thresholds (Sequence[float]): T IoU thresholds, none below the ``floor`` of the overlaps.

    Returns:
        ndarray: (..., T) share of the counted objects that are covered with at least that IoU;
        nan where no object is counted.
    """
    covered = np.stack([(overlaps >= t).sum(axis=-1) for t in thresholds], axis=-1)
    counted = np.broadcast_to((~np.isnan(overlaps)).sum(axis=-1)[..., None], covered.shape)
    return np.divide(covered, counted, out=np.full(covered.shape, np.nan), where=counted > 0)


def average_recall(overlaps):
    """AR: mean of :func:`recall` over IoU 0.5, 0.55, ..., 0.95; (..., G) -> (...)."""
    return recall(overlaps, AR_THRESHOLDS).mean(axis=-1)
