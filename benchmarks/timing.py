"""What the benchmarks share: variants timed in turn, ratios, memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

ON_GPU = torch.cuda.is_available()


def device_name() -> str:
    device = torch.cuda.get_device_name() if ON_GPU else f"{torch.get_num_threads()} CPU threads"
    return f"{device}, torch {torch.__version__}"


def wait_for_gpu() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def in_turn(variants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Call each variant once in each round, in changing order, after two calls to warm up.

    Returns:
        What each one returned, its seconds, with the rounds as the first axis.
    """
    rng = np.random.default_rng(0)
    for run in variants.values():
        run(), run()
    seconds = {name: [] for name in variants}
    for _ in range(rounds):
        for name in rng.permutation(list(variants)):
            seconds[name].append(variants[name]())
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(seconds: np.ndarray, base: np.ndarray, digits: int = 2) -> tuple[float, str]:
    """Return the median of the rounds' ratios, and the interval that holds half of them."""
    low, median, high = np.percentile(seconds / base, [25, 50, 75])
    return median, f"{low:.{digits}f} to {high:.{digits}f}"


def peak_memory(run: Callable[[], Any]) -> int:
    """Return the bytes that ``run()`` allocates at its peak, beyond what was allocated before."""
    if ON_GPU:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return int(np.cumsum([size for _, size in sorted(changes)]).max())
