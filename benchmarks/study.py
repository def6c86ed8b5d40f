#!/usr/bin/env python
"""Train configurations with several seeds and tabulate what they gave.

    python benchmarks/study.py --configs bccd_rpn bccd_nrpn bccd_nrpn_overlap --seeds 1 2
    python benchmarks/study.py ... --jobs 2 --threads 1 -- SOLVER.MAX_ITER 300

Each run is ``train_net.py`` with its own folder, OUTPUT/<config>_seed<k>. A run that has ended is
not run again, an interrupted one is resumed, so the study can be stopped and started at any time.
The table is written to OUTPUT/table.md whenever a run ends.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import mean

from tqdm import tqdm

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
# title -> task and metric of the result dictionary: percent; proposals per image over a score
COLUMNS = {
    "R@50, IoU 0.5": ("box_proposals", "R50@50"),
    "R@50, IoU 0.7": ("box_proposals", "R70@50"),
    "R@100, IoU 0.5": ("box_proposals", "R50@100"),
    "R@100, IoU 0.7": ("box_proposals", "R70@100"),
    "R@300, IoU 0.7": ("box_proposals", "R70@300"),
    "AR@50": ("box_proposals", "AR@50"),
    "hits over 0.7": ("proposal_errors", "hit>0.7"),
    "background over 0.7": ("proposal_errors", "background>0.7"),
    "mAP@50": ("bbox@50", "AP50"),
    "mAP@300": ("bbox@300", "AP50"),
}


def train(config, seed, folder, args):
    """Run one configuration with one seed, unless its results are there."""
    if not os.path.exists(os.path.join(folder, "inference", "results.json")):
        os.makedirs(folder, exist_ok=True)
        command = [sys.executable, "train_net.py", "--config-file", f"configs/{config}.yaml"]
        command += ["--num-gpus", str(args.num_gpus), "--resume"]
        command += ["OUTPUT_DIR", os.path.abspath(folder), "SEED", str(seed), *args.opts]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
        with open(os.path.join(folder, "stdout.txt"), "a") as log:
            subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=True)
    return config, seed


def read(folder):
    """One run's results, or None while there are none: {column: percent} and mined per image."""
    path = os.path.join(folder, "inference", "results.json")
    if not os.path.exists(path):
        return None
    with open(path) as f:
        results = json.load(f)["metrics"]
    values = {title: results[task][metric] for title, (task, metric) in COLUMNS.items()}
    with open(os.path.join(folder, "metrics.json")) as f:
        lines = [json.loads(line) for line in f]
    joint = [line for line in lines if line.get("nrpn/joint")]
    if joint:
        values["FPs mined"] = mean(line["nrpn/false_positives"] for line in joint)
        values["at the end"] = mean(line["nrpn/false_positives"] for line in joint[-5:])
    return values


def table(args):
    """Markdown: a row per configuration, the mean over seeds and each seed's value."""
    titles = [*COLUMNS, "FPs mined", "at the end"]
    rows = [["configuration", "seeds", *titles], ["---"] * (len(titles) + 2)]
    for config in args.configs:
        runs = [read(run_folder(args, config, seed)) for seed in args.seeds]
        runs = [run for run in runs if run]
        cells = []
        for title in titles:
            values = [run[title] for run in runs if title in run]
            each = ", ".join(f"{v:.1f}" for v in values)
            cells.append(f"{mean(values):.1f} ({each})" if values else "-")
        rows.append([config, str(len(runs)), *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def run_folder(args, config, seed):
    return os.path.join(args.output, f"{config}_seed{seed}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", required=True, help="names in configs/")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--output", default=os.path.join("output", "study"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each run")
    parser.add_argument("--num-gpus", type=int, default=0)
    parser.add_argument("opts", nargs="*", help="overrides for train_net.py, after --")
    args = parser.parse_args()
    runs = [(config, seed) for seed in args.seeds for config in args.configs]
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(train, c, s, run_folder(args, c, s), args) for c, s in runs]
        for job in tqdm(jobs, desc="runs"):
            job.result()
            with open(os.path.join(args.output, "table.md"), "w") as f:
                f.write(table(args) + "\n")
    print(f"{platform.processor() or platform.machine()}, {args.threads} thread(s) per run")
    print(table(args))


if __name__ == "__main__":
    main()
