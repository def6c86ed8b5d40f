"""Starts training in one process, or joins several: Detectron2's ``launch``, or torchrun."""

import argparse
import gc
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from .command_line import run


def launch(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Call ``main(args)`` in each process.

    Under torchrun, which has started the processes, there is one for each of them; otherwise one
    for each of ``--num-gpus`` on each of ``--num-machines``. With ``--num-gpus 0`` they run on the
    CPU, one on each machine.

    Args:
        args: with num_gpus, num_machines, machine_rank, dist_url; see train_net.py.

    Raises:
        SystemExit: if there are fewer GPUs than processes, or numbers that make no sense, and for
            bad input; see :func:`nrpn_d2.engine.command_line.run`.
    """
    if args.num_gpus < 0:
        sys.exit(f"--num-gpus is {args.num_gpus}; it must be at least 0, which is the CPU")
    if not 0 <= args.machine_rank < args.num_machines:
        message = f"--machine-rank is {args.machine_rank} and --num-machines {args.num_machines}"
        sys.exit(f"{message}; the machines count from 0")
    if args.num_machines > 1 and args.dist_url == "auto":
        sys.exit("several machines need --dist-url, such as tcp://HOST:PORT of the first one")
    if args.num_gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    processes = int(os.environ["LOCAL_WORLD_SIZE"]) if under_torchrun else args.num_gpus
    if args.num_gpus > 0 and processes > torch.cuda.device_count():
        option = "--nproc_per_node" if under_torchrun else "--num-gpus"
        message = f"{option} {processes}, but {torch.cuda.device_count()} usable GPU(s) found"
        remedy = "check the driver with nvidia-smi, or run on the CPU with --num-gpus 0"
        sys.exit(f"{message}: {remedy}")
    if under_torchrun:
        _join(processes)
        _run(main, args)
        return
    try:
        machines = args.num_machines, args.machine_rank, args.dist_url
        detectron2_launch(_run, max(processes, 1), *machines, args=(main, args))
    except ProcessExitedException as error:  # it has said why
        sys.exit(error.exit_code)


def _run(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Call ``main(args)``, then leave the process groups together."""
    try:
        run(main, args)
        comm.synchronize()
    except SystemExit:  # bad input: this process has no message under way, others may
        leave_process_groups()
        raise
    leave_process_groups()


def leave_process_groups() -> None:
    """End the process groups and their threads, if there are any.

    A gloo thread needs Python's lock to release the last message's tensors. If Python exits before
    the thread gets the lock, the process is aborted: SIGABRT, "terminate called without an active
    exception". Detectron2's comm holds references to the groups, which keep the threads alive
    beyond ``destroy_process_group``.
    """
    if not dist.is_initialized():
        return
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()
    gc.collect()  # a trainer's DistributedDataParallel holds its group, too
    dist.destroy_process_group()


def _join(processes: int) -> None:
    """Join the processes that torchrun has started, ``processes`` on each machine."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend, init_method="env://", timeout=DEFAULT_TIMEOUT)
    for first in range(0, dist.get_world_size(), processes):  # v0.5 has no function for it
        group = dist.new_group(list(range(first, first + processes)))
        if first <= dist.get_rank() < first + processes:
            comm._LOCAL_PROCESS_GROUP = group
