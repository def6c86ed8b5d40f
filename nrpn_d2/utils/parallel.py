"""Much of the same work, on the cores that this process may use."""

import functools
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from detectron2.utils import comm
from tqdm import tqdm

_MAX_PROCESSES = 8
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def parallel_map(
    function: Callable[[_Task], _Result], tasks: list[_Task], description: str
) -> Iterator[_Result]:
    """Map in the order of the tasks, with several processes and a progress bar.

    Args:
        function: only runs Python code and reads files: the processes are forked.
        tasks, the results: are pickled.
        description: stands before the progress bar.
    """
    quiet = not comm.is_main_process()
    progress = functools.partial(tqdm, total=len(tasks), desc=description, disable=quiet)
    processes = free_processes()
    if processes == 1:
        yield from progress(map(function, tasks))
        return
    # Forked processes start at once and share what this one holds until they write to it: their
    # garbage collectors would do that, without gc.freeze.
    context = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(processes, mp_context=context, initializer=gc.freeze)
    try:
        yield from progress(executor.map(function, tasks, chunksize=128))
    finally:
        executor.shutdown(cancel_futures=True)


def free_processes() -> int:
    """Return how many processes this rank may use; 1 where forking is not safe or not allowed."""
    if not sys.platform.startswith("linux") or multiprocessing.current_process().daemon:
        return 1
    has_group = comm._LOCAL_PROCESS_GROUP is not None  # of this machine's ranks
    ranks = comm.get_local_size() if has_group else comm.get_world_size()
    return min(max(usable_cores() // ranks, 1), _MAX_PROCESSES)


def usable_cores() -> int:
    """Return the number of cores that this process may run on, or of all if unknown."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
