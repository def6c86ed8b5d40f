"""The benchmarks run, on sizes that say nothing about time."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
COMMANDS = {  # and a line that they print
    "rpn_step.py --rounds 1 --size 96 128": "NRPN ",
    "train_step.py --models R50-FPN --images 1 --rounds 1 --size 64 96": "separate ",
    "evaluation.py --images 8 --runs 1": "recall",
    "other_heads.py --iterations 4 --images 4": "Mask R-CNN ",
    "inference.py --rounds 1 --size 64 96": "stock ",
    "read_voc.py --images 50": "images/s",
    "run_page.py --classes 3 --images 20": "Page of 3 classes, 20 images",
    "nrpn_trials.py two_updates DATASETS.VOC_NAME  DATASETS.VOC_ROOT  DATASETS.TRAIN "
    "('shapes_train',) DATASETS.TEST () MODEL.WEIGHTS  SOLVER.MAX_ITER 4 SOLVER.STEPS (3,) "
    "MODEL.NRPN.WARMUP_ITERS 1 SOLVER.IMS_PER_BATCH 1": "nRPN joint: ",
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split(".")[0])
def test_it_runs(command, tmp_path, process_environment):
    script, *arguments = command.split(" ")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        cwd=tmp_path,
        env=process_environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert COMMANDS[command] in done.stdout
