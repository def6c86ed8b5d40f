"""What in a config does not fit its data: hints that a training gives at its start."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from .anchors.reach import MAX_OUT_OF_REACH, REACHED, AnchorLevel, best_ious, reached
from .anchors.seen import seen_objects

_SHRUNK = 3  # times, from which on images count as much larger than the network's input
_TINY = 12  # pixels: the square root of the area of an object that the network hardly sees


def data_hints(
    cfg: CfgNode, records: Sequence[dict[str, Any]], num_images: int, levels: list[AnchorLevel]
) -> Iterator[str]:
    """Yield a sentence for each key that does not fit.

    Args:
        records: dataset dicts with "width" and "height", some of the training images.
        num_images: to train on, in all.
        levels: the anchors of the model; none if they are of a kind that cannot be judged.
    """
    solver, names = cfg.SOLVER, ", ".join(cfg.DATASETS.TRAIN)
    epoch = -(-num_images // solver.IMS_PER_BATCH)
    if solver.MAX_ITER < epoch:
        yield (
            f"SOLVER.MAX_ITER {solver.MAX_ITER} is less than one epoch, {epoch} iterations of "
            f"{solver.IMS_PER_BATCH} of the {num_images} images in {names}; make it larger"
        )
    if solver.WARMUP_ITERS >= solver.MAX_ITER:
        yield (
            f"SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS} is the whole training (MAX_ITER "
            f"{solver.MAX_ITER}), so that the learning rate never reaches BASE_LR; lower it"
        )
    objects = seen_objects(records, cfg)
    if not len(objects.boxes):
        return
    if levels:
        out_of_reach = 1 - reached(best_ious(objects, levels).max(axis=1))[0]
        if out_of_reach > MAX_OUT_OF_REACH:
            yield (
                f"No anchor reaches an IoU of {REACHED[0]:g} with {100 * out_of_reach:.0f} % of "
                f"the objects in {names}; tools/fit_anchors.py finds anchors that fit"
            )
    short = np.median([min(record["width"], record["height"]) for record in records])
    seen = np.median(objects.image_sizes.min(axis=1))
    tiny = float((np.sqrt(objects.shapes.prod(axis=1)) < _TINY).mean())
    if short > _SHRUNK * seen and tiny > MAX_OUT_OF_REACH:
        yield (
            f"Images in {names} are shrunk from {short:.0f} to {seen:.0f} pixels, where "
            f"{100 * tiny:.0f} % of the objects are smaller than {_TINY} pixels; raise "
            "INPUT.MIN_SIZE_TRAIN, MAX_SIZE_TRAIN, MIN_SIZE_TEST and MAX_SIZE_TEST, or cut the "
            "images into tiles"
        )
