#!/usr/bin/env python
"""The cost of pictures and test losses, between their periods and when they are due.

    python benchmarks/pictures.py                                   # configs/shapes_nrpn.yaml
    python benchmarks/pictures.py --config-file FILE KEY VALUE ...  # of your own

A training step with and without the hooks of VIS_PERIOD and of the losses on test images, neither
of which is due, in turn in one process; their ratio is the median over rounds, with the interval
that holds half of them. Then the seconds of the pictures and of the losses when they are due.
"""

import argparse
import os
import tempfile
import time

import numpy as np
from detectron2.engine.hooks import EvalHook
from detectron2.utils.events import EventStorage
from timing import device_name, in_turn, ratio, wait_for_gpu

from nrpn_d2.engine.defaults import build_cfg
from nrpn_d2.engine.pictures import DrawPictures
from nrpn_d2.engine.trainer import Trainer
from nrpn_d2.engine.validation import ValidationLosses

CONFIG = os.path.join(os.path.dirname(__file__), "..", "configs", "shapes_nrpn.yaml")
NEVER = 10**9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=CONFIG)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    args = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        opts = ["MODEL.NRPN.WARMUP_ITERS", "0", "VIS_PERIOD", str(NEVER), "OUTPUT_DIR", folder]
        measure(Trainer(build_cfg(args.config_file, [*opts, *args.opts])), args.rounds)


def measure(trainer: Trainer, rounds: int) -> None:
    """Print the cost of the hooks on a trainer's model."""
    pictures = DrawPictures(trainer.cfg, trainer.model)
    losses = ValidationLosses(trainer.cfg, trainer.model)
    hooks = [pictures, EvalHook(NEVER, losses)]
    for hook in hooks:
        hook.trainer = trainer

    def step(looked_at: bool) -> float:
        start = time.perf_counter()
        trainer.run_step()
        for hook in hooks if looked_at else ():
            hook.after_step()
        wait_for_gpu()
        trainer.iter += 1
        return time.perf_counter() - start

    with EventStorage(0) as trainer.storage:
        trainer.iter = 0
        pictures.before_train()
        seconds = in_turn({"alone": lambda: step(False), "looked at": lambda: step(True)}, rounds)
        median, half = ratio(seconds["looked at"], seconds["alone"], digits=4)
        print(f"{device_name()}: a step of {np.median(seconds['alone']):.3f} s; with both hooks")
        print(f"relative to it {median:.4f}, half of {rounds} rounds {half}")
        start = time.perf_counter()
        for _ in range(1000):
            for hook in hooks:
                hook.after_step()
        print(f"the hooks alone: {1000 * (time.perf_counter() - start):.2f} microseconds per step")
        for name, look in {
            "pictures": lambda: pictures._look(1, trainer.storage),
            "losses": losses,
        }.items():
            start = time.perf_counter()
            look()
            print(f"{name} when they are due: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
