"""Training in two processes on the CPU (gloo). No test hangs: the processes are ended after a time.

``python test_distributed_training.py FOLDER`` runs all cases below in two processes each, which are
started as torchrun starts them, and writes what they gave to FOLDER/<case>/rank<n>.pth.
"""

import argparse
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from small_training import OBJECTS, Trainer, free_port, train, training_cfg, write_images
from test_nonfinite import InfiniteImageTrainer
from voc_folder import write_voc_folder

from nrpn_d2.engine.launch import launch
from nrpn_d2.engine.validation import ValidationLosses

# All anchors are in the mini-batches, so that nothing depends on how they are sampled
ALL_ANCHORS = {
    "meta_architecture": "ProposalNetwork",
    "INPUT__MIN_SIZE_TRAIN": (64,),
    "MODEL__PIXEL_MEAN": [128.0, 128.0, 128.0],
    "MODEL__RPN__BATCH_SIZE_PER_IMAGE": 1024,  # of 12 * 8 * 9 = 864 anchors
    "MODEL__NRPN__BATCH_SIZE_PER_IMAGE": 1024,
    "MODEL__NRPN__FP_SELECT": "threshold",
    "MODEL__NRPN__FP_SCORE": 0.5,
    "SOLVER__BASE_LR": 0.003,  # the false positives last to the end
}
QUALITY_FOCAL = {
    "MODEL__RPN__OBJECTNESS_LOSS__NAME": "QualityFocal",
    "MODEL__RPN__NEGATIVE_SAMPLER__NAME": "All",
}
SCALED = {  # for one process; two of them take twice the images in half of the iterations
    "SOLVER__REFERENCE_WORLD_SIZE": 1,
    "SOLVER__IMS_PER_BATCH": 1,
    "SOLVER__MAX_ITER": 12,
    "SOLVER__STEPS": (8,),
    "SOLVER__WARMUP_ITERS": 4,
    "SOLVER__CHECKPOINT_PERIOD": 4,
    "MODEL__NRPN__WARMUP_ITERS": 6,
}


def gloo_threads():
    """Return the names of this process's gloo threads (none on systems without /proc)."""
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def results_of(trainer):
    history = trainer.storage.histories()
    return {
        "weights": trainer.checkpointer.model.state_dict(),
        "false_positives": [v for v, _ in history["nrpn/false_positives"].values()],
        "joint": [v for v, _ in history["nrpn/joint"].values()],
        "total_loss": [v for v, _ in history["total_loss"].values()] if "lr" in history else None,
        "random": np.random.rand(),  # of the last step: nothing else draws from numpy in it
        "local": (comm.get_local_rank(), comm.get_local_size()),
    }


def objects_on_one_rank(folder, output):
    """In each iteration, one process has an image without objects and without false positives."""
    return results_of(train(training_cfg(f"{folder}/two", output, **ALL_ANCHORS)))


def focal(folder, output):
    """The same with a loss that is divided by the number of positives."""
    trainer = train(training_cfg(f"{folder}/two", output, **ALL_ANCHORS | QUALITY_FOCAL))
    return {"weights": trainer.checkpointer.model.state_dict()}


def validated(folder, output):
    """Losses of 5 images: a process has one more, and the normaliser is not that of training."""
    cfg = training_cfg(folder, output, DATASETS__TEST=("small_test",), **QUALITY_FOCAL)
    with EventStorage(0):
        return {"losses": ValidationLosses(cfg, Trainer(cfg).model)()}


def scaled(folder, output):
    trainer = train(training_cfg(folder, output, **SCALED))
    solver = trainer.cfg.SOLVER
    return {
        **results_of(trainer),
        "gloo": gloo_threads(),
        "cfg": [solver.IMS_PER_BATCH, solver.MAX_ITER, solver.STEPS, solver.BASE_LR],
        "warmup": [solver.WARMUP_ITERS, trainer.cfg.MODEL.NRPN.WARMUP_ITERS],
    }


def resumed(folder, output):
    """As ``scaled``, stopped after 4 iterations."""
    trainer = Trainer(training_cfg(folder, output, **SCALED))
    trainer.max_iter = 4
    trainer.train()
    return scaled(folder, output)


def partly_read(folder, output):
    """The RPN leaves the last stage to the heads; BatchNorm; an evaluation at the end."""
    return results_of(
        train(
            training_cfg(
                folder,
                output,
                DATASETS__TEST=("small_test",),
                MODEL__VGG__NORM="BN",
                MODEL__VGG__DEPTHS=[1] * 5,
                MODEL__VGG__WIDTHS=[8, 8, 16, 16, 16],
                MODEL__VGG__OUT_FEATURES=["conv4", "conv5"],
                MODEL__ROI_HEADS__IN_FEATURES=["conv5"],
            )
        )
    )


def own_folders(folder, output):
    """The main process finds its checkpoint, the other has another OUTPUT_DIR."""
    cfg = training_cfg(folder, f"{output}/{comm.get_rank()}")
    trainer = Trainer(cfg)
    trainer.max_iter = 2
    trainer.train()
    try:
        train(cfg)
    except ValueError as error:
        return {"error": str(error)}


def nonfinite(folder, output):
    try:
        train(training_cfg(folder, output), trainer=InfiniteImageTrainer)
    except FloatingPointError as error:
        return {"error": str(error)}


CASES = (objects_on_one_rank, focal, scaled, resumed)
CASES += (partly_read, own_folders, nonfinite, validated)


def run_case(case, folder, world_size):
    """Fork ``world_size`` processes, with torchrun's variables if there are several."""
    output, port = f"{folder}/{case.__name__}{world_size}", free_port()
    os.makedirs(output)
    for rank in range(world_size):
        if os.fork() == 0:
            signal.alarm(120)  # ends a process that hangs
            torchrun = {
                "TORCHELASTIC_RUN_ID": "test",
                "MASTER_ADDR": "localhost",
                "MASTER_PORT": port,
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": world_size,
                "LOCAL_WORLD_SIZE": world_size,
            }
            os.environ.update({k: str(v) for k, v in torchrun.items()} if world_size > 1 else {})
            code = 1
            try:
                launch(
                    lambda _, rank=rank: torch.save(
                        case(folder, output), f"{output}/rank{rank}.pth"
                    ),
                    argparse.Namespace(num_gpus=0, num_machines=1, machine_rank=0, dist_url="auto"),
                )
                assert not gloo_threads()  # Python's exit would now and then abort at one
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
    statuses = [os.wait()[1] for _ in range(world_size)]
    assert statuses == [0] * world_size, (case.__name__, statuses)


def main(folder):
    for case in CASES:
        run_case(case, folder, world_size=2)
    for case in (objects_on_one_rank, focal, validated):
        run_case(case, folder, world_size=1)


@pytest.fixture(scope="module")
def results(tmp_path_factory, process_environment):
    """(case, world size) -> what each process gave."""
    folder = tmp_path_factory.mktemp("distributed")
    write_images(folder)
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 256, (8, 12, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    write_voc_folder(
        folder / "two",
        [
            {"id": "objects", "pixels": pixels, "objects": OBJECTS, "suffix": ".png"},
            {"id": "blank", "pixels": np.full_like(pixels, 128), "objects": [], "suffix": ".png"},
        ],
    )
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        env=process_environment,
        timeout=500,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]

    def of(case, world_size=2):
        paths = [folder / f"{case.__name__}{world_size}/rank{r}.pth" for r in range(world_size)]
        return [torch.load(path, weights_only=False) for path in paths]

    of.folder = folder
    return of


def assert_same_weights(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_objects_and_false_positives_on_one_rank(results):
    """No hang, no unused parameter; the same weights, through the end of the warm-up."""
    ranks = results(objects_on_one_rank)
    assert ranks[0]["joint"] == ranks[1]["joint"] == [0, 0, 0, 1, 1, 1]
    pairs = list(zip(*(rank["false_positives"] for rank in ranks)))
    assert all(min(pair) == 0 < max(pair) for pair in pairs), pairs
    assert len({pair.index(0) for pair in pairs}) == 2  # each of them is the one without, at times
    assert_same_weights(ranks[0]["weights"], ranks[1]["weights"])


def test_two_processes_equal_one_with_the_same_batch(results):
    main, _ = results(objects_on_one_rank)
    (alone,) = results(objects_on_one_rank, world_size=1)
    assert len(main["total_loss"]) == 6 and main["total_loss"][0] > main["total_loss"][2]
    assert main["total_loss"] == pytest.approx(alone["total_loss"], rel=1e-5)
    for name, value in main["weights"].items():
        torch.testing.assert_close(value, alone["weights"][name], rtol=1e-4, atol=1e-6, msg=name)


def test_positives_are_those_of_all_processes(results):
    """A focal loss is divided by their number; here all are on one rank."""
    main, other = results(focal)
    (alone,) = results(focal, world_size=1)
    assert_same_weights(main["weights"], other["weights"])
    for name, value in main["weights"].items():
        torch.testing.assert_close(value, alone["weights"][name], rtol=1e-4, atol=1e-6, msg=name)


def test_losses_on_test_images_do_not_depend_on_the_processes(results):
    (alone,), ranks = results(validated, world_size=1), results(validated)
    assert alone["losses"]["validation/total"] > 0
    for rank in ranks:
        assert rank["losses"] == pytest.approx(alone["losses"])


def test_schedule_and_warmup_scale_with_the_processes(results):
    ranks = results(scaled)
    for rank in ranks:
        assert rank["cfg"] == [2, 6, (4,), 0.04] and rank["warmup"] == [2, 3]
        assert rank["joint"] == [0, 0, 0, 1, 1, 1]
    assert ranks[0]["random"] != ranks[1]["random"]
    assert [rank["local"] for rank in ranks] == [(0, 2), (1, 2)]
    assert all(rank["gloo"] for rank in ranks) or not Path("/proc/self/task").exists()
    assert_same_weights(ranks[0]["weights"], ranks[1]["weights"])


def test_resumed_in_two_processes(results):
    assert_same_weights(results(resumed)[0]["weights"], results(scaled)[0]["weights"])
    assert_same_weights(results(resumed)[1]["weights"], results(scaled)[1]["weights"])


def test_layers_that_only_the_heads_read(results):
    """No unused parameter, and the BatchNorm statistics of the checkpoint in both processes."""
    main, other = (rank["weights"] for rank in results(partly_read))
    assert any("running_var" in name for name in main)
    assert_same_weights(main, other)


def test_resumed_from_different_folders(results):
    errors = [rank["error"] for rank in results(own_folders)]
    assert all("start (iteration 0 with SEED 1 and iteration 2 with" in e for e in errors), errors


def test_losses_that_are_not_finite_on_one_rank(results):
    """Both processes end with the same error, which names the rank at fault."""
    errors = [rank["error"] for rank in results(nonfinite)]
    assert errors[0] == errors[1] and "im2.png" in errors[0]
    assert ("rank 0: loss" in errors[0]) != ("rank 1: loss" in errors[0])


if __name__ == "__main__":
    main(sys.argv[1])
