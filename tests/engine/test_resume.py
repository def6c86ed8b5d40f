"""A run that is killed and resumed ends as one that was left alone, to the bit."""

import itertools
import os
import signal
import subprocess
import sys
from functools import partial
from unittest import mock

import pytest
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.events import get_event_storage
from small_training import (
    Trainer,
    assert_same_state,
    final_state,
    train,
    training_cfg,
    write_images,
)

from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer
from nrpn_d2.engine.resume import check_training_state
from nrpn_d2.engine.run_page import RunPage

SCHEDULE = {  # 24 iterations; checkpoints every 2, evaluations every 6; the nRPN from 9 on
    "SOLVER__MAX_ITER": 24,
    "SOLVER__STEPS": (16,),
    "SOLVER__CHECKPOINTS_TO_KEEP": 2,
    "SOLVER__BEST_METRIC": "all/score",
    "TEST__EVAL_PERIOD": 6,
    "DATASETS__TEST": ("small_test",),
    "MODEL__NRPN__WARMUP_ITERS": 9,
    "MODEL__VGG__NORM": "BN",
}

SHORT = {"SOLVER__MAX_ITER": 4, "SOLVER__CHECKPOINTS_TO_KEEP": 1, "TEST__EVAL_PERIOD": 2}
SHORT = {**SCHEDULE, **SHORT}


class BestInTheMiddle(DatasetEvaluator):
    """An evaluation that takes no time; its value is best in iteration 11."""

    best = 11
    interrupted = False
    iterations = []  # of all evaluations

    def evaluate(self):
        iteration = get_event_storage().iter
        self.iterations.append(iteration)
        if self.interrupted and iteration == self.best:
            raise KeyboardInterrupt
        return {"all": {"score": -abs(iteration - self.best)}}


class QuickTrainer(Trainer):  # no page
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return BestInTheMiddle()

    def build_hooks(self):
        return [hook for hook in super().build_hooks() if not isinstance(hook, RunPage)]


def checkpoints(output):
    return {name for name in os.listdir(output) if name.startswith("model_")}


def assert_same_run(output, undisturbed):
    """The weights, the optimizer, the schedule, what is kept, and the best value so far."""
    assert checkpoints(output) == checkpoints(undisturbed)
    assert not [name for name in os.listdir(output) if name.endswith(".tmp")]
    for name in checkpoints(undisturbed):
        one, other = (torch.load(f"{d}/{name}", weights_only=True) for d in (output, undisturbed))
        assert_same_state(one, other, name)


def train_in_fork(folder, output, before=lambda: None):
    """Resume in a process of its own. Return whether it ended, and was not killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            log = os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            before()
            train(training_cfg(folder, output, **SHORT), trainer=QuickTrainer)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, open(f"{output}.log").read()[-3000:]
    return True


def kill_before_operation(number):
    """Kill this process before its ``number``-th operation that changes a folder or a disk."""
    left = iter(range(number))
    for name in ("fsync", "replace", "remove"):
        operation = getattr(os, name)

        def killing(*args, operation=operation):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args)

        setattr(os, name, killing)


def kill_before_each_operation(folder):
    """Kill a short run before each of its file operations in turn; print how many there were."""
    train_in_fork(folder, f"{folder}/undisturbed")
    for number in itertools.count():
        output = f"{folder}/run{number}"
        if train_in_fork(folder, output, partial(kill_before_operation, number)):
            return print(number)
        train_in_fork(folder, output)


def test_killed_before_each_file_operation(tmp_path, process_environment):
    """In a process of its own, which forks without threads."""
    write_images(tmp_path)
    command = [sys.executable, __file__, kill_before_each_operation.__name__, str(tmp_path)]
    result = subprocess.run(
        command, env=process_environment, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stderr[-3000:]
    runs = int(result.stdout.splitlines()[-1])
    # 3 checkpoints, the file that names the last one, 2 best checkpoints: two operations each
    assert runs >= 3 * 4 + 2 * 2
    for run in range(runs):
        assert_same_run(tmp_path / f"run{run}", tmp_path / "undisturbed")


@pytest.mark.parametrize("best, checkpoint", [(11, "model_0000011.pth"), (24, "model_final.pth")])
def test_interrupted_in_the_evaluation(best, checkpoint, tmp_path, monkeypatch):
    """The checkpoint is there, its evaluation, the best one, is not; 24 is the one at the end."""
    cfg = training_cfg(write_images(tmp_path), tmp_path / "out", **SCHEDULE)
    monkeypatch.setattr(BestInTheMiddle, "best", best)
    monkeypatch.setattr(BestInTheMiddle, "iterations", [])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(BestInTheMiddle, "interrupted", True)
        train(cfg, trainer=QuickTrainer)
    assert (tmp_path / "out/last_checkpoint").read_text() == checkpoint
    train(cfg, trainer=QuickTrainer)
    saved = torch.load(tmp_path / "out/model_best.pth", weights_only=True)
    assert saved["best"] == {"metric": "all/score", "value": 0, "iteration": best}
    assert saved["iteration"] == best
    once = [5, 11, 17, 24]
    assert BestInTheMiddle.iterations == sorted([*once, best])
    written = os.stat(tmp_path / "out/model_final.pth").st_mtime_ns
    train(cfg, trainer=QuickTrainer)  # nothing is left to do
    assert os.stat(tmp_path / "out/model_final.pth").st_mtime_ns == written


def test_no_evaluation_after_an_error_in_the_last_iteration(tmp_path, monkeypatch):
    """Of several processes, one would evaluate, and the others would wait for it."""
    cfg = training_cfg(write_images(tmp_path), tmp_path / "out", **SCHEDULE)
    monkeypatch.setattr(BestInTheMiddle, "iterations", [])
    run_step = QuickTrainer.run_step

    def fail_at_the_end(self):
        if self.iter == self.max_iter - 1:
            raise OSError("drive lost")
        run_step(self)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="drive lost"):
        patch.setattr(QuickTrainer, "run_step", fail_at_the_end)
        train(cfg, trainer=QuickTrainer)
    assert BestInTheMiddle.iterations == [5, 11, 17]


def test_nothing_to_evaluate_on(tmp_path):
    """TEST.EVAL_PERIOD asks for evaluations, and there is no data set for them."""
    options = {"SOLVER__BEST_METRIC": "", "TEST__EVAL_PERIOD": 2}
    train(training_cfg(write_images(tmp_path), tmp_path / "out", **options))
    assert not (tmp_path / "out/model_best.pth").exists()


def test_killed_before_the_first_checkpoint(tmp_path):
    """In the folder of an earlier run: that is not the one to be resumed."""
    folder, short = write_images(tmp_path), {**SCHEDULE, "SOLVER__MAX_ITER": 6}
    old = training_cfg(folder, tmp_path / "out", **{**short, "SEED": 2})
    new = training_cfg(folder, tmp_path / "out", **short)
    train(old, trainer=QuickTrainer)
    killed = QuickTrainer(new)
    killed.resume_or_load(resume=False)
    assert (tmp_path / "out/last_checkpoint").exists()  # a model to evaluate is loaded like this
    killed.run_step = mock.Mock(side_effect=KeyboardInterrupt)  # a process may ignore SIGINT
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    assert (tmp_path / "out/last_checkpoint.previous").read_text() == "model_final.pth"
    assert (tmp_path / "out/model_best.pth.previous").exists()
    train(new, trainer=QuickTrainer)
    train(training_cfg(folder, tmp_path / "undisturbed", **short), trainer=QuickTrainer)
    for name in ("model_final.pth", "model_best.pth"):
        one, other = (torch.load(tmp_path / d / name) for d in ("out", "undisturbed"))
        assert_same_state(one, other)


def stop_after(cfg, iterations, trainer=Trainer):
    trainer = trainer(cfg)
    trainer.max_iter = iterations
    trainer.train()
    return trainer


def test_precise_batch_norm(tmp_path):
    """Its batches, and the seed that was drawn, are the same after a resume.

    Both networks get statistics from them.
    """
    folder = write_images(tmp_path)
    options = {
        "MODEL__VGG__NORM": "BN",
        "TEST__EVAL_PERIOD": 2,
        "TEST__PRECISE_BN__ENABLED": True,
        "TEST__PRECISE_BN__NUM_ITER": 3,
        "DATASETS__TEST": ("small_test",),
        "SOLVER__BEST_METRIC": "all/score",
    }
    drawn = training_cfg(folder, tmp_path / "out", SEED=-1, **options)
    options["SEED"] = stop_after(drawn, 4, QuickTrainer).seed
    train(drawn, trainer=QuickTrainer)
    train(training_cfg(folder, tmp_path / "undisturbed", **options), trainer=QuickTrainer)
    assert_same_state(final_state(tmp_path / "out"), final_state(tmp_path / "undisturbed"))
    weights = final_state(tmp_path / "out")["model"]
    variances = [name for name in weights if "running_var" in name]
    assert len(variances) == 2 * sum(name.startswith("backbone.") for name in variances) > 0
    assert all((weights[name] > 0).any() for name in variances)


def test_a_given_seed_goes_before_that_of_the_checkpoint(tmp_path):
    folder = write_images(tmp_path)
    stop_after(training_cfg(folder, tmp_path / "out", SEED=1), 4)
    resumed = Trainer(training_cfg(folder, tmp_path / "out", SEED=2))
    resumed.resume_or_load()
    assert resumed.seed == 2 and resumed.start_iter == 4


def test_changes_of_the_config_are_listed(tmp_path, caplog):
    """What the optimizer's state decides has no effect, and the log says so."""
    folder = write_images(tmp_path)
    stop_after(training_cfg(folder, tmp_path / "out"), 4)
    changes = {"SOLVER__BASE_LR": 0.5, "SOLVER__WEIGHT_DECAY": 0.1, "SOLVER__IMS_PER_BATCH": 1}
    resumed = Trainer(training_cfg(folder, tmp_path / "out", **changes))
    resumed.resume_or_load()
    listed = [line.strip() for line in caplog.text.splitlines() if " -> " in line]
    assert listed == [
        "SOLVER.BASE_LR: 0.02 -> 0.5 (no effect)",
        "SOLVER.IMS_PER_BATCH: 2 -> 1",
        "SOLVER.WEIGHT_DECAY: 0.0001 -> 0.1 (no effect)",
    ]
    resumed.train()
    for group in resumed.optimizer.param_groups:
        assert group["lr"] in (0.02, 0.002) and group["weight_decay"] == 1e-4


def test_mixed_precision_cannot_begin_in_a_resumed_run(tmp_path):
    trainer = Trainer(training_cfg(write_images(tmp_path), tmp_path / "out"))
    state = trainer._trainer.state_dict()
    with pytest.raises(ValueError, match="SOLVER.AMP.ENABLED is True, and the run to be resumed"):
        check_training_state(state, trainer.optimizer, amp=True, changes={})


def test_results_that_are_not_defined_are_not_in_the_metrics(tmp_path, monkeypatch):
    """NaN is no JSON."""
    results = {"all": {"score": 1.0, "n/a": float("nan")}}
    monkeypatch.setattr(BestInTheMiddle, "evaluate", lambda self: results)
    cfg = training_cfg(write_images(tmp_path), tmp_path / "out", **SHORT)
    trainer = train(cfg, trainer=QuickTrainer)
    metrics = (tmp_path / "out/metrics.json").read_text()
    assert "NaN" not in metrics and '"all/score": 1.0' in metrics
    assert trainer._last_eval_results == results


def test_resuming_tidies_up(tmp_path):
    """The last checkpoint is kept, also where the file system's clock stood still."""
    model = torch.nn.Linear(1, 1)
    writer = NRPNCheckpointer(model, str(tmp_path))
    for iteration in range(20):
        writer.save(f"model_{iteration:07d}")
        os.utime(tmp_path / f"model_{iteration:07d}.pth", (1, 1))
    for half in ("model_0000020.0123.pth.tmp", f"last_checkpoint.{'a' * 32}.tmp", "notes.tmp"):
        (tmp_path / half).touch()
    NRPNCheckpointer(model, str(tmp_path), keep=2).resume_or_load("", resume=True)
    kept = {"model_0000018.pth", "model_0000019.pth", "last_checkpoint", "notes.tmp"}
    assert set(os.listdir(tmp_path)) == kept


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
