#!/usr/bin/env python
"""Train for long, and look at memory and speed over time.

    python benchmarks/soak.py                                # 2,000 iterations on the CPU
    python benchmarks/soak.py SOLVER.MAX_ITER 20000 MODEL.DEVICE cuda

The real trainer, with its data loader in a second process, checkpoints and evaluations, on the
made-up data set `shapes`. Writes OUTPUT_DIR/soak.csv, a line for every 50 iterations: resident
memory of this process and of its children in MiB, iterations per second of the training steps, and
their time on this process's processors, which other work on the machine disturbs less. Reads /proc,
so it needs Linux.
"""

import argparse
import csv
import os
import statistics
import time

from detectron2.engine import HookBase
from tabulate import tabulate

from nrpn_d2.engine.command_line import run
from nrpn_d2.engine.defaults import setup_run
from nrpn_d2.engine.trainer import Trainer

CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../configs/shapes_nrpn.yaml")
EVERY = 50  # iterations
SMALL = [
    *("MODEL.VGG.WIDTHS", "[32, 32, 32, 32]", "MODEL.VGG.DEPTHS", "[1, 1, 1, 1]"),
    *("MODEL.VGG.FC_DIM", "64", "INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96"),
    *("MODEL.NRPN.FP_SELECT", "topk", "MODEL.NRPN.WARMUP_ITERS", "50"),
    *("SOLVER.IMS_PER_BATCH", "2", "SEED", "1"),
    *("SOLVER.MAX_ITER", "2000", "SOLVER.STEPS", "(1500,)", "SOLVER.CHECKPOINT_PERIOD", "250"),
    *("TEST.EVAL_PERIOD", "500", "OUTPUT_DIR", os.path.join("output", "soak")),
]


def resident_mib(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as f:
        return f.read().split()


class Watch(HookBase):
    """Measures every ``EVERY`` iterations; the time is that of the steps, without other hooks."""

    def __init__(self):
        self.rows, self.seconds, self.cpu_seconds = [], 0.0, 0.0

    def before_step(self):
        self.start = time.perf_counter(), time.process_time()

    def after_step(self):
        self.seconds += time.perf_counter() - self.start[0]
        self.cpu_seconds += time.process_time() - self.start[1]
        iteration = self.trainer.iter + 1
        if iteration % EVERY == 0:
            self.rows.append(
                {
                    "iteration": iteration,
                    "rss_mib": round(resident_mib("self"), 1),
                    "children_mib": round(sum(resident_mib(pid) for pid in children()), 1),
                    "iterations_per_s": round(EVERY / self.seconds, 2),
                    "cpu_ms_per_iteration": round(1000 * self.cpu_seconds / EVERY, 1),
                }
            )
            self.seconds = self.cpu_seconds = 0.0


class SoakTrainer(Trainer):
    def build_hooks(self):
        self.watch = Watch()
        return [self.watch, *super().build_hooks()]


def summary(rows):
    """The medians of the four quarters of the run."""
    size = len(rows) // 4
    quarters = [rows[n * size : (n + 1) * size] for n in range(4)]
    columns = [name for name in rows[0] if name != "iteration"]
    table = [
        [f"{q[0]['iteration'] - EVERY} to {q[-1]['iteration']}"]
        + [statistics.median(row[c] for row in q) for c in columns]
        for q in quarters
    ]
    return tabulate(table, headers=["iterations", *columns], floatfmt=".1f")


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default=CONFIG, help="default: configs/shapes_nrpn.yaml")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    return parser.parse_intermixed_args(args)


def main(args: argparse.Namespace) -> None:
    cfg = setup_run(args.config_file, [*SMALL, *args.opts])
    trainer = SoakTrainer(cfg)
    trainer.train()
    rows = trainer.watch.rows
    path = os.path.join(cfg.OUTPUT_DIR, "soak.csv")
    with open(path, "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{summary(rows)}\n{path}")


if __name__ == "__main__":
    run(main, parse_args())
