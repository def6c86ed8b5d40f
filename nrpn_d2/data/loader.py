"""Batches: those for training are a function of the seed and the iteration alone.

Detectron2's samplers give the order of the images. Its loader is not used, because its data depend
on the number of workers, and going on at iteration i would mean loading the i batches before it.
"""

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations, trivial_batch_collator
from detectron2.data.common import DatasetFromList
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..utils.seeding import seeded
from .checks import class_names, left_out_classes
from .mapper import VOCDatasetMapper, annotated_mapper
from .proposal_files import add_proposals
from .reading import Records, is_ignored

_MAX_TRIES = 100


class NothingToLearn(ValueError):
    """A dataset lacks objects, or the shapes of objects that a model learns."""


def build_train_loader(cfg: CfgNode, mapper: Callable) -> "TrainLoader":
    """Build the loader of ``DATASETS.TRAIN``; the keys are those of Detectron2's loader."""
    data, batch_size, world_size = cfg.DATALOADER, cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    if batch_size < 1 or batch_size % world_size:
        message = f"SOLVER.IMS_PER_BATCH is {batch_size}; it counts the images of all processes"
        raise ValueError(f"{message}, and must be a multiple of their number, {world_size}")
    options = {"filter_empty": data.FILTER_EMPTY_ANNOTATIONS and not cfg.DATASETS.LEFT_OUT}
    if cfg.MODEL.KEYPOINT_ON:
        options["min_keypoints"] = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    records = _load_records(cfg, "TRAIN", cfg.DATASETS.TRAIN, **options)
    if cfg.DATASETS.LEFT_OUT:
        records = _leave_out(records, cfg.DATASETS.LEFT_OUT, cfg.DATASETS.TRAIN)
        if data.FILTER_EMPTY_ANNOTATIONS:
            records = filter_images_with_only_crowd_annotations(records)
    _check_objects(cfg, records, ", ".join(cfg.DATASETS.TRAIN))
    return TrainLoader(
        records,
        mapper,
        _sampler(data, records),
        batch_size=batch_size // world_size,
        group_by_aspect_ratio=data.ASPECT_RATIO_GROUPING,
        num_workers=data.NUM_WORKERS,
        seed=cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
    )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Build the loader of one of ``DATASETS.TEST``; the keys are those of Detectron2's loader."""
    records = _load_records(cfg, "TEST", [dataset_name], filter_empty=False)
    mapper, workers = VOCDatasetMapper(cfg, is_train=False), cfg.DATALOADER.NUM_WORKERS
    return build_detection_test_loader(records, mapper=mapper, num_workers=workers)


def build_validation_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Build :func:`build_test_loader`, whose images keep their objects, for losses.

    Raises:
        NothingToLearn: the dataset lacks what the losses need.
    """
    records = _load_records(cfg, "TEST", [dataset_name], filter_empty=False)
    if cfg.DATASETS.LEFT_OUT:
        records = _leave_out(records, cfg.DATASETS.LEFT_OUT, [dataset_name])
    _check_objects(cfg, records, dataset_name)
    mapper, workers = annotated_mapper(cfg), cfg.DATALOADER.NUM_WORKERS
    return build_detection_test_loader(records, mapper=mapper, num_workers=workers)


def _load_records(cfg: CfgNode, key: str, names: Sequence[str], **options: Any) -> Records:
    """Return the dataset dicts of ``names``, with proposals if MODEL.LOAD_PROPOSALS is True.

    Args:
        key: "TRAIN" or "TEST".
        options: see ``get_detection_dataset_dicts``. It is not given the proposal files: it would
            run code in them.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        return get_detection_dataset_dicts(names, **options)
    datasets, files = list(cfg.DATASETS[key]), cfg.DATASETS[f"PROPOSAL_FILES_{key}"]
    if len(files) != len(datasets):
        counts = f"{len(files)} files for {len(datasets)} datasets"
        raise ValueError(f"DATASETS.PROPOSAL_FILES_{key} has {counts}; give one for each")
    records = []
    for name in names:
        of_dataset = get_detection_dataset_dicts([name], **options)
        records += add_proposals(of_dataset, files[datasets.index(name)])
    return records


def _leave_out(records: Records, names: Sequence[str], datasets: Sequence[str]) -> Records:
    """Return records without the objects of some classes, also of difficult ones."""
    # Lists of images without objects have no classes, all others the same
    dataset = next((name for name in datasets if class_names(name)), datasets[0])
    classes = left_out_classes(names, class_names(dataset), dataset)
    kept = [
        {**r, "annotations": [a for a in r["annotations"] if a["category_id"] not in classes]}
        for r in records
    ]
    before, after = (sum(len(r["annotations"]) for r in some) for some in (records, kept))
    message = f"{before - after} of {before} objects are left out"
    logging.getLogger(__name__).info("DATASETS.LEFT_OUT %s: %s", ", ".join(names), message)
    return kept


def _check_objects(cfg: CfgNode, records: Records, origin: str) -> None:
    """Raise NothingToLearn unless there are objects, with the shapes that the model learns."""
    if all(is_ignored(obj) for record in records for obj in record.get("annotations", ())):
        message = f"{origin}: none of {len(records)} images has an object to learn"
        raise NothingToLearn(f"{message} (difficult ones do not count); check the annotations")
    for message in itertools.chain.from_iterable(missing_shapes(cfg, r) for r in records):
        raise NothingToLearn(message)


def missing_shapes(cfg: CfgNode, record: dict[str, Any]) -> Iterator[str]:
    """Yield a message for each object to learn without a shape that the model learns."""
    for shape, key in (("segmentation", "MASK_ON"), ("keypoints", "KEYPOINT_ON")):
        for number, obj in enumerate(record.get("annotations", ()) if cfg.MODEL[key] else ()):
            if shape not in obj and not is_ignored(obj):
                place = f"object {number} of {record['file_name']}"
                yield f"MODEL.{key} is True, and {place} has no {shape}; annotate it"


def _sampler(data: CfgNode, records: Records) -> Callable:
    """Return a function from the seed to the sampler."""
    if data.SAMPLER_TRAIN == "TrainingSampler":
        return partial(TrainingSampler, len(records))
    if data.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        options = {"sqrt": data.REPEAT_SQRT} if "REPEAT_SQRT" in data else {}  # not in v0.5
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, data.REPEAT_THRESHOLD, **options
        )
        return partial(RepeatFactorTrainingSampler, factors)
    known = "'TrainingSampler' or 'RepeatFactorTrainingSampler'"
    raise ValueError(f"DATALOADER.SAMPLER_TRAIN is {data.SAMPLER_TRAIN!r}; it must be {known}")


@dataclass
class TrainLoader:
    """An endless stream of batches, lists of mapped records; each process has its own part.

    What it gives depends on the seed only. The random numbers of a mapper are those of the
    record's place in the stream of all processes, wherever it is mapped.

    Raises:
        ValueError: a record without width and height, if these are needed.
    """

    records: InitVar[Records]
    mapper: Callable  # record -> model input; for None, another record is drawn
    make_sampler: Callable  # called with seed=, gives this process's endless record numbers
    _: KW_ONLY
    batch_size: int  # of this process
    # Whether the images of a batch are all wider than high or none, so that they need less padding
    group_by_aspect_ratio: bool
    num_workers: int
    seed: int  # the same in all processes

    def __post_init__(self, records: Records):
        self._records = DatasetFromList(records, copy=False)
        by_shape = self.group_by_aspect_ratio
        self._bucket_of = _is_wide(records) if by_shape else [False] * len(records)
        self.start_at(0, self.seed)

    @property
    def num_records(self) -> int:
        return len(self._records)

    def some_records(self, count: int) -> Records:
        """Return at most ``count`` of the records, evenly spread."""
        step = -(-len(self._records) // count)
        return [self._records[i] for i in range(0, len(self._records), step)]

    def start_at(self, iteration: int, seed: int) -> None:
        """Leave out what an iteration before ``iteration`` gets; call it before the first batch."""
        self._start, self.seed = iteration, seed

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        # A generator: nothing happens before the first batch is asked for. The training loop of
        # Detectron2 v0.5 calls iter() before a checkpoint says where to start.
        yield from DataLoader(
            _SeededRecords(self._records, self.mapper, self.seed),
            batch_sampler=itertools.islice(self._batches(), self._start, None),
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            generator=torch.Generator(),  # without one it draws from that of the training step
        )

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        """Yield batches of (record number, place in the stream of all processes)."""
        places = itertools.count(comm.get_rank(), comm.get_world_size())
        buckets: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for index, place in zip(self.make_sampler(seed=self.seed), places):
            bucket = buckets[self._bucket_of[index]]
            bucket.append((index, place))
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()


def _is_wide(records: Records) -> list[bool]:
    for record in records:
        if "width" not in record or "height" not in record:
            message = f"{record.get('file_name', record)}: the record has no width and height"
            raise ValueError(f"{message}; add them, or set DATALOADER.ASPECT_RATIO_GROUPING False")
    return [record["width"] > record["height"] for record in records]


@dataclass
class _SeededRecords:
    """Maps (number of a record, place in the stream) to model input."""

    records: DatasetFromList
    mapper: Callable
    seed: int

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        index, place = item
        with seeded(self.seed, place):
            for _ in range(_MAX_TRIES):
                data = self.mapper(self.records[index])
                if data is not None:
                    return data
                logging.getLogger(__name__).warning("The mapper skips record %d", index)
                index = random.randrange(len(self.records))
        raise RuntimeError(f"the mapper returned None for {_MAX_TRIES} records in a row")
