"""To evaluate in the middle of a training, which afterwards goes on as if nothing had happened."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .seeding import seeded


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients and with random numbers of its own.

    Afterwards all generators, a GPU's too, and the mode of each module are as they were.
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
