"""
Recall of class-agnostic proposals: how many objects does some proposal cover?

Shape shorthand in this module:

    K: proposals of one image, best score first
    G: annotated objects, of one image or of the whole dataset
    B: budgets; a budget is the number of best proposals that count
    Z: size ranges
    T: IoU thresholds
"""

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


def covered_overlaps(iou, budgets, in_range, floor=0.5, matching="greedy"):
    """
    The IoU with which each object of one image is covered, at several budgets.

    Greedy matching is one-to-one: the pair of largest IoU is matched first, then the largest among
    the proposals and objects that are left, as in Detectron2's COCO evaluator. The objects of one
    size range compete among themselves. With best-overlap matching, a proposal may cover any
    number of objects.

    Args:
        iou (ndarray): (K, G), proposals by descending score.
        budgets (Sequence[int]): B positive numbers of proposals.
        in_range (ndarray): (Z, G) bool, which objects belong to which size range.
        floor (float): IoUs below it are taken as 0. Larger pairs are matched before smaller ones,
            so recall at thresholds >= floor does not change, and few pairs are left to look at.
        matching (str): "greedy" or "best".

    Returns:
        ndarray: (B, Z, G), 0 for a miss, nan where the object is not in the range.
    """
    if matching not in ("greedy", "best"):
        raise ValueError(f"matching must be 'greedy' or 'best', got {matching!r}")
    budgets = np.asarray(budgets)
    if budgets.size == 0 or budgets.min() < 1:
        raise ValueError(f"budgets must be positive numbers of proposals, got {budgets.tolist()}")
    close = np.flatnonzero((iou >= floor).any(axis=1))
    iou = np.where(iou[close] >= floor, iou[close], 0.0)
    # The rows of the reduced matrix in each budget; many budgets have the same ones.
    counts, budget_of = np.unique(np.searchsorted(close, budgets), return_inverse=True)

    overlaps = np.full((len(counts),) + in_range.shape, np.nan)
    for i, count in enumerate(counts):
        best = iou[:count].max(axis=0, initial=0.0)
        overlaps[i] = np.where(in_range, best, np.nan)
        if matching == "greedy" and _is_contended(iou[:count], best):
            for z, members in enumerate(in_range):
                overlaps[i, z, members] = match_greedily(iou[:count, members])
    return overlaps[budget_of]


def _is_contended(iou, best):
    """Whether one proposal has the best overlap, above 0, with two objects."""
    winners = iou.argmax(axis=0)[best > 0] if len(iou) else np.empty(0)
    return len(np.unique(winners)) < len(winners)


def match_greedily(iou):
    """
    One-to-one matching, largest IoU first.

    Args:
        iou (ndarray): (K, G)

    Returns:
        ndarray: (G,) the IoU of each object with its own proposal; 0 without one.
    """
    iou = iou.copy()
    overlaps = np.zeros(iou.shape[1])
    for _ in range(min(iou.shape)):
        k, g = np.unravel_index(iou.argmax(), iou.shape)
        if iou[k, g] <= 0:
            break
        overlaps[g] = iou[k, g]
        iou[k, :] = 0
        iou[:, g] = 0
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
