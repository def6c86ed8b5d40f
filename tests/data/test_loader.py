"""Batches: the stream of Detectron2's samplers, whatever the workers and the first iteration."""

import itertools
import random
from functools import partial

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from registered_dataset import registered
from small_models import small_cfg
from small_training import training_cfg, write_images

from nrpn_d2.data import DatasetError, VOCDatasetMapper
from nrpn_d2.data.loader import TrainLoader, build_train_loader
from nrpn_d2.utils.seeding import seed_all, seeded

WIDE, HIGH = (96, 64), (64, 96)


def records(*sizes):
    return [{"image_id": n, "width": w, "height": h} for n, (w, h) in enumerate(sizes)]


def draw(record):
    """A mapper that uses every generator that augmentations use."""
    return {**record, "drawn": (random.random(), np.random.rand(), torch.rand(1).item())}


def loader(data, mapper=draw, seed=5, **options):
    options = {"batch_size": 2, "group_by_aspect_ratio": False, "num_workers": 0, **options}
    return TrainLoader(data, mapper, partial(TrainingSampler, len(data)), seed=seed, **options)


def first(batches, count=20):
    return list(itertools.islice(batches, count))


def ids(batches):
    return [[item["image_id"] for item in batch] for batch in batches]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_same_data_for_any_number_of_workers(num_workers, grouped):
    data = records(WIDE, HIGH, WIDE, WIDE, HIGH)
    alone = first(loader(data, group_by_aspect_ratio=grouped))
    assert len({item["drawn"] for batch in alone for item in batch}) == 40
    assert first(loader(data, group_by_aspect_ratio=grouped, num_workers=num_workers)) == alone


@pytest.mark.parametrize("start", [1, 7])
def test_starting_later_leaves_out_the_first_batches_unread(start):
    read = []

    def mapper(record):
        read.append(record["image_id"])
        return draw(record)

    whole = first(loader(records(WIDE, HIGH, WIDE, WIDE, HIGH), group_by_aspect_ratio=True))
    later = loader(records(WIDE, HIGH, WIDE, WIDE, HIGH), mapper, group_by_aspect_ratio=True)
    batches = iter(later)  # Detectron2 v0.5's training loop is made before the start is known
    later.start_at(start, seed=5)
    assert first(batches, 20 - start) == whole[start:]
    assert len(read) == 2 * (20 - start)


def test_the_seed_is_that_of_the_start():
    data = records(*[WIDE] * 5)
    stream = loader(data)
    stream.start_at(0, seed=6)
    assert first(stream) == first(loader(data, seed=6)) != first(loader(data))


def test_grouped_by_aspect_ratio():
    """Wider than high, or not; within each group in the order of the sampler."""
    sizes = [WIDE, HIGH, WIDE, (64, 64), HIGH, WIDE]
    order = [i for batch in ids(first(loader(records(*sizes), batch_size=1), 60)) for i in batch]
    batches = ids(first(loader(records(*sizes), group_by_aspect_ratio=True), 20))
    for wide in (True, False):
        of_group = [i for batch in batches for i in batch if (sizes[i] == WIDE) == wide]
        assert of_group == [i for i in order if (sizes[i] == WIDE) == wide][: len(of_group)]
        assert len(of_group) > 10
    assert all(len({sizes[i] == WIDE for i in batch}) == 1 for batch in batches)


def test_processes_share_the_stream(monkeypatch):
    """Two processes with a batch of 2 get what one process with a batch of 4 gets."""
    whole = first(loader(records(*[WIDE] * 5), batch_size=4))
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        parts.append(first(loader(records(*[WIDE] * 5))))
    for batch, one, other in zip(whole, *parts):
        assert batch[0::2] == one and batch[1::2] == other


def test_a_mapper_may_skip_records():
    def mapper(record):
        return draw(record) if record["image_id"] else None

    data = records(*[WIDE] * 3)
    once, again = first(loader(data, mapper)), first(loader(data, mapper))
    assert once == again
    assert {i for batch in ids(once) for i in batch} == {1, 2}
    with pytest.raises(RuntimeError, match="the mapper returned None for 100 records"):
        first(loader(data, lambda record: None), 1)


def test_loading_leaves_the_generators_of_the_training_step_alone():
    batches = iter(loader(records(*[WIDE] * 3)))
    seed_all(3)
    expected = draw({})
    seed_all(3)
    next(batches)  # the first one also starts the loader
    assert draw({}) == expected
    with seeded(3):
        assert draw({}) == expected


def test_seeds_differ():
    keys = [(), (0,), (0, 0), (1,), (1, 0), (0, 1), (0, 0, 0)]
    drawn = set()
    for seed in (0, 1, 2**31):
        for key in keys:
            seed_all(seed, *key)
            drawn.update(draw({})["drawn"])
    assert len(drawn) == 3 * 3 * len(keys)


@pytest.mark.parametrize("empty, ids_left", [(False, 5), (True, 4)])
def test_config(empty, ids_left, tmp_path):
    cfg = training_cfg(write_images(tmp_path), tmp_path, DATALOADER__FILTER_EMPTY_ANNOTATIONS=empty)
    batches = first(build_train_loader(cfg, VOCDatasetMapper(cfg, is_train=True)))
    assert {len(batch) for batch in batches} == {2}
    assert len({i for batch in ids(batches) for i in batch}) == ids_left
    assert batches[0][0]["image"].dtype == torch.uint8
    aspects = [[item["width"] > item["height"] for item in batch] for batch in batches]
    assert cfg.DATALOADER.ASPECT_RATIO_GROUPING
    assert all(len(set(of_batch)) == 1 for of_batch in aspects)


@pytest.mark.parametrize("sqrt, times", [(True, 2), (False, 4)])
def test_repeat_factors(sqrt, times):
    """The threshold is 0.8. All 5 images have a disk (frequency 1: once), one has a square
    (frequency 0.2): sqrt(0.8 / 0.2) = 2 times, in Detectron2 main also 0.8 / 0.2 = 4 times."""
    disk, square = ((5, 5, 20, 20), 0), ((30, 5, 50, 20), 1)
    with registered([[disk]] * 4 + [[disk, square]], ["disk", "square"]) as name:
        cfg = small_cfg(
            DATASETS__TRAIN=(name,),
            SOLVER__IMS_PER_BATCH=1,
            DATALOADER__NUM_WORKERS=0,
            DATALOADER__SAMPLER_TRAIN="RepeatFactorTrainingSampler",
            DATALOADER__REPEAT_THRESHOLD=0.8,
        )
        if not sqrt:
            if "REPEAT_SQRT" not in cfg.DATALOADER:
                pytest.skip("this Detectron2 has no DATALOADER.REPEAT_SQRT")
            cfg.DATALOADER.REPEAT_SQRT = False
        epoch = ids(first(build_train_loader(cfg, draw), 4 + times))
    assert sorted(i for batch in epoch for i in batch) == ["0", "1", "2", "3"] + ["4"] * times


def test_errors(tmp_path, monkeypatch):
    folder = write_images(tmp_path)
    cfg = training_cfg(folder, tmp_path, SOLVER__IMS_PER_BATCH=3)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="SOLVER.IMS_PER_BATCH is 3; .* of their number, 2"):
        build_train_loader(cfg, draw)
    monkeypatch.undo()
    cfg = training_cfg(folder, tmp_path, DATALOADER__SAMPLER_TRAIN="Training")
    with pytest.raises(ValueError, match="DATALOADER.SAMPLER_TRAIN is 'Training'; it must be"):
        build_train_loader(cfg, draw)
    with pytest.raises(ValueError, match="x.jpg: the record has no width"):
        loader([{"file_name": "x.jpg"}], group_by_aspect_ratio=True)


def test_classes_that_are_left_out(tmp_path, restored_catalogs, caplog):
    """Their objects are not there; with FILTER_EMPTY_ANNOTATIONS, nor are images with no others."""
    objects = [[((0, 0, 9, 9), 0), ((0, 0, 8, 8), 1)], [((0, 0, 9, 9), 1, 1)]]
    with registered(objects, ["cat", "dog"]) as name:
        cfg = small_cfg(DATASETS__TRAIN=(name,), DATASETS__LEFT_OUT=["dog"])
        for filters, expected in ((True, [[0]]), (False, [[0], []])):
            cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filters
            with caplog.at_level("INFO", "nrpn_d2"):
                records = build_train_loader(cfg, lambda record: record)._records
            classes = [[a["category_id"] for a in r["annotations"]] for r in records]
            assert classes == expected
            assert "LEFT_OUT dog: 2 of 3 objects" in caplog.text
        assert len(DatasetCatalog.get(name)[0]["annotations"]) == 2
        cfg.DATASETS.LEFT_OUT = ["dogs"]
        with pytest.raises(DatasetError, match="'dogs', which is no class .* mean 'dog'"):
            build_train_loader(cfg, lambda record: record)
