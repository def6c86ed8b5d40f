"""The LazyConfigs are the YAML configs of the same names."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from torch import nn

from nrpn_d2 import add_nrpn_config, get_config_file
from nrpn_d2.checkpoint.checkpointer import set_pixels
from nrpn_d2.data import VOCDatasetMapper

NAMES = sorted(
    path.stem for path in Path(get_config_file("lazy/voc_nrpn_vgg16.py")).parent.glob("*.py")
)


def yaml_config(name):
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.merge_from_file(get_config_file(f"{name}.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.WEIGHTS.startswith("torchvision://"):
        set_pixels(cfg)
    return cfg


def settings(value, path=""):
    """All that an object was built with, by its path: attributes, defaults, buffers, shapes."""
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
        return {path: value}
    if isinstance(value, nn.Parameter):
        return {path: (*value.shape, value.requires_grad)}
    if isinstance(value, torch.Tensor):
        return {path: value.tolist()}
    if isinstance(value, Mapping):
        parts = dict(value.items())
    elif hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        parts = dict(enumerate(value))
    elif inspect.isroutine(value) or hasattr(value, "func"):  # a function, or a part of one
        parameters = inspect.signature(value).parameters.items()
        parts = {key: repr(p.default) for key, p in parameters if p.default is not p.empty}
        value = getattr(value, "func", value)
    else:
        parts = {key: part for key, part in vars(value).items() if not key.startswith("_")}
        if isinstance(value, nn.Module):
            parts.update(value.named_children(), **dict(value.named_parameters(recurse=False)))
            parts.update(value.named_buffers(recurse=False))
    # Of a LazyConfig, lists and dicts are those of OmegaConf
    kinds = {Sequence: "sequence", Mapping: "mapping"}
    kind = next((k for t, k in kinds.items() if isinstance(value, t)), type(value).__name__)
    found = {path: getattr(value, "__name__", kind)}
    for key, part in parts.items():
        found.update(settings(part, f"{path}.{key}"))
    return found


def rates_of(model, optimizer):
    """Return, by the parameter's name, learning rate, weight decay and momentum."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    keys = ("lr", "weight_decay", "momentum")
    return {
        names[id(parameter)]: [group[key] for key in keys]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", NAMES)
def test_models_and_solvers_are_equal(name):
    cfg, lazy = yaml_config(name), LazyConfig.load(get_config_file(f"lazy/{name}.py"))
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    for group in optimizer.param_groups:  # the schedule warms up from the first rate
        group.setdefault("initial_lr", group["lr"])
    expected = settings(model)
    rates = rates_of(model, optimizer)
    schedule = build_lr_scheduler(cfg, optimizer)._multiplier
    del model, optimizer

    model = instantiate(lazy.model)
    assert settings(model) == expected
    lazy.optimizer.params.model = model
    assert rates_of(model, instantiate(lazy.optimizer)) == rates
    multiplier = instantiate(lazy.lr_multiplier)
    for where in range(1000):
        assert multiplier(where / 1000) == pytest.approx(schedule(where / 1000))


@pytest.mark.parametrize("name", NAMES)
def test_data_and_the_run_are_equal(name):
    cfg, lazy = yaml_config(name), LazyConfig.load(get_config_file(f"lazy/{name}.py"))
    for is_train, loader in ((True, lazy.dataloader.train), (False, lazy.dataloader.test)):
        assert settings(instantiate(loader.mapper)) == settings(VOCDatasetMapper(cfg, is_train))
    assert list(lazy.dataloader.train.dataset.names) == list(cfg.DATASETS.TRAIN)
    assert [lazy.dataloader.test.dataset.names] == list(cfg.DATASETS.TEST)
    assert lazy.dataloader.train.total_batch_size == cfg.SOLVER.IMS_PER_BATCH
    # Top-level names are saved, and references in copies of a part lead nowhere
    assert set(lazy) == {"model", "dataloader", "optimizer", "lr_multiplier", "train"}
    train = lazy.train
    assert train.init_checkpoint == cfg.MODEL.WEIGHTS
    run = (train.max_iter, train.checkpointer.period, train.eval_period)
    assert run == (cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD)
    assert train.checkpointer.max_to_keep == cfg.SOLVER.CHECKPOINTS_TO_KEEP
