"""Random numbers as a function of what they are for, not of what was drawn before.

With them a run that was resumed, or that loads its images in other processes, draws what an
undisturbed one draws, and a checkpoint needs no generator's state.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def _seed_cpu(seed: int, key: tuple[int, ...]) -> int:
    """Return what was seeded with: 64 bits; keys, also of different lengths, are independent."""
    derived = int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(derived)
    np.random.seed(derived % 2**32)
    random.seed(derived)
    return derived


def seed_all(seed: int, *key: int) -> None:
    """Seed torch (on all devices), numpy and ``random``.

    Args:
        seed: of the run, at least 0.
        key: what the random numbers are for, such as rank and iteration.
    """
    torch.manual_seed(_seed_cpu(seed, key))


@contextmanager
def seeded(seed: int, *key: int) -> Iterator[None]:
    """Seed as :func:`seed_all`, on the CPU; afterwards restore the generators' old states."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    _seed_cpu(seed, key)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients and with random numbers of its own.

    Afterwards all generators, a GPU's too, and the mode of each module are as they were: a training
    that is evaluated in its middle goes on as if nothing had happened.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with seeded(0), torch.random.fork_rng(devices), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
