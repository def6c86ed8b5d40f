"""train_net.py in several processes: torchrun, several machines."""

import argparse
import os
import subprocess
import sys

import pytest
import torch
from small_training import (
    CLASSES,
    assert_same_state,
    final_state,
    free_port,
    training_cfg,
    write_images,
)

from nrpn_d2.engine import launch as launch_module
from nrpn_d2.engine.launch import launch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def train_net(process_environment, tmp_path):
    """Starts ``train_net.py`` on the CPU, by a command, with a folder to write to and flags."""
    processes = []

    def start(command, output, *flags):
        cfg = training_cfg(write_images(tmp_path), tmp_path / output)
        cfg.DATASETS.VOC_NAME, cfg.DATASETS.VOC_ROOT = "small", str(tmp_path)
        cfg.DATASETS.VOC_CLASSES = CLASSES
        config = tmp_path / f"{output}.yaml"
        config.write_text(cfg.dump())
        command = [*command, f"{ROOT}/train_net.py", "--config-file", config, "--num-gpus", 0]
        command = [str(c) for c in [*command, *flags]]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, env=process_environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


def ended(*processes):
    for process in processes:
        printed = process.communicate(timeout=300)[0]
        assert process.returncode == 0, printed[-5000:]


def test_torchrun_equals_two_machines(train_net, tmp_path):
    """Detectron2's launch on two "machines" and torchrun: two processes, the same weights."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2]
    test = ["DATASETS.TEST", "('small_test',)"]
    ended(train_net([*torchrun, "--master_port", free_port()], "torchrun", *test))
    assert (tmp_path / "torchrun/inference/results.json").exists()
    url = f"tcp://127.0.0.1:{free_port()}"
    flags = ["--num-machines", 2, "--dist-url", url, "--machine-rank"]
    ended(*[train_net([sys.executable], "machines", *flags, rank) for rank in (0, 1)])
    states = [final_state(tmp_path / name) for name in ("torchrun", "machines")]
    assert_same_state(*states)
    for name in ("torchrun", "machines"):
        assert (tmp_path / name / "log.txt.rank1").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_more_processes_of_torchrun_than_gpus(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match=r"--nproc_per_node 2, but 0 usable.*--num-gpus 0"):
        launch(None, argparse.Namespace(num_gpus=1, num_machines=1, machine_rank=0))


def test_on_the_cpu_no_process_sees_a_gpu(monkeypatch):
    """With a GPU, Detectron2's launch would take NCCL."""
    calls = []
    monkeypatch.setattr(
        launch_module, "detectron2_launch", lambda *_, args, **__: calls.append(args[0])
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    args = argparse.Namespace(num_gpus=0, num_machines=2, machine_rank=0, dist_url="tcp://a:1")
    launch(print, args)
    assert calls == [print] and os.environ["CUDA_VISIBLE_DEVICES"] == ""
