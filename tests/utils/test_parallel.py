"""Work on several cores."""

import gc
import multiprocessing
import os

import pytest

from nrpn_d2.utils import parallel
from nrpn_d2.utils.parallel import free_processes, parallel_map


def where(task):
    frozen = gc.get_freeze_count() if task % 200 == 0 else None  # counting takes 30 ms
    return task, os.getpid(), frozen


def test_processes_keep_the_order_and_freeze_what_they_share(monkeypatch, capsys):
    monkeypatch.setattr(parallel, "free_processes", lambda: 2)
    results = list(parallel_map(where, list(range(600)), "Working"))
    assert [task for task, _, _ in results] == list(range(600))
    assert os.getpid() not in {pid for _, pid, _ in results}
    # Without gc.freeze, 100,000 images cost each process 100 MiB more.
    assert min(frozen for task, _, frozen in results if task % 200 == 0) > 1000
    assert gc.get_freeze_count() == 0
    assert "Working: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    "platform, cores, ranks, here, processes",
    [
        ("linux", 6, 1, None, 6),
        ("linux", 64, 1, None, 8),
        ("linux", 64, 16, None, 4),
        ("linux", 4, 8, None, 1),
        ("linux", 64, 64, 16, 4),
        ("darwin", 6, 1, None, 1),
    ],
)
def test_processes_of_a_rank(monkeypatch, platform, cores, ranks, here, processes):
    """``here``: ranks on this machine, where the processes know that."""
    monkeypatch.setattr(parallel.sys, "platform", platform)
    monkeypatch.setattr(
        parallel.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False
    )
    monkeypatch.setattr(parallel.comm, "get_world_size", lambda: ranks)
    monkeypatch.setattr(parallel.comm, "get_local_size", lambda: here)
    monkeypatch.setattr(parallel.comm, "_LOCAL_PROCESS_GROUP", here)
    assert free_processes() == processes


def test_a_daemon_starts_no_processes(monkeypatch):
    monkeypatch.setattr(parallel.sys, "platform", "linux")
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert free_processes() == 1
