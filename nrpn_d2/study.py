"""A study: variants of a config, several seeds each, under equal conditions, as one table.

    STUDY.yaml -> runs (one folder each) -> results.csv -> study_report.py

A study file:

    config: "../Base-voc-animals.yaml"    # paths are relative to the study file
    output: "output/studies/voc_animals"  # relative to where the study is started
    dataset: "voc_animals_test"           # a name that the config registers
    seeds: [1, 2, 3, 4, 5]
    iterations: [3400]                    # SOLVER.MAX_ITER; SOLVER.STEPS moves with it
    options: {SOLVER.BASE_LR: 0.01}       # of all runs
    variants:
      rpn: {}
      ohem: {MODEL.RPN.NEGATIVE_SAMPLER.NAME: "OHEM"}
      iou: {config: "../voc_animals_iou.yaml", seeds: [1, 2, 3]}
    baseline: "rpn"
    budgets: [5, 10, 20, 50, 100, 300]
    iou_thresholds: [0.5, 0.7, 0.9]
    nms_thresholds: [0.5, 0.6, 0.7, 0.8]
    columns: ["AR@10", "R70@50", "R50@10 | 0.5"]  # of the tables; "| NMS threshold", or the config's

With one seed all variants start from the same weights and see the same images in the same order,
flipped alike (the trainer's random numbers are a function of the seed and the iteration).
"""
import csv
import json
import logging
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import build_detection_test_loader
from detectron2.modeling import build_model

from .checkpointer import NRPNCheckpointer
from .config import add_nrpn_config, check_nrpn_config, merge_config_file
from .data import register_datasets
from .evaluation.nms_sweep import evaluate_along_nms
from .evaluation.score_evaluator import is_bin
from .saving import atomic_open
from .trainer import Trainer

logger = logging.getLogger(__name__)

FINAL = "model_final.pth"
TIME = "seconds per iteration"


class Run(NamedTuple):
    """A training of a study."""

    variant: str
    iterations: int
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.variant}_{self.iterations}_seed{self.seed}"


class Result(NamedTuple):
    """A line of results.csv.

    ``nms`` is an NMS threshold, or "" for what does not depend on one.
    """

    variant: str
    iterations: int
    seed: int
    dataset: str
    nms: str
    metric: str
    value: float

    @property
    def run(self) -> Run:
        return Run(self.variant, self.iterations, self.seed)


@dataclass
class Study:
    """What a study file says; see the head of the module.

    Attributes:
        folder: where the study file is.
    """

    config: str
    output: str
    dataset: str
    seeds: List[int]
    variants: Dict[str, Dict[str, Any]]
    baseline: str
    folder: str
    iterations: List[int] = field(default_factory=list)
    options: Dict[str, Any] = field(default_factory=dict)
    budgets: List[int] = field(default_factory=lambda: [5, 10, 20, 50, 100, 300])
    iou_thresholds: List[float] = field(default_factory=lambda: [0.5, 0.7, 0.9])
    nms_thresholds: List[float] = field(default_factory=lambda: [0.5, 0.6, 0.7, 0.8])
    columns: List[str] = field(
        default_factory=lambda: ["AR@10", "AR@100", "R50@10", "R50@50", "R70@50", "background>0.7"]
    )

    @classmethod
    def read(cls, path: str) -> "Study":
        """
        Raises:
            ValueError: naming ``path``, for a file that is no study.
        """
        try:
            with open(path, encoding="utf-8") as f:
                content = yaml.safe_load(f)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} is not a study: it must consist of lines KEY: VALUE")
        known = set(cls.__dataclass_fields__) - {"folder"}
        unknown = set(content) - known
        if unknown:
            raise ValueError(
                f"{path}: unknown {', '.join(sorted(map(str, unknown)))}; "
                f"the keys of a study are {', '.join(sorted(known))}"
            )
        try:
            study = cls(**content, folder=os.path.dirname(os.path.abspath(path)))
        except TypeError as error:
            raise ValueError(f"{path}: {str(error).partition(') ')[2]}") from None
        if study.baseline not in study.variants:
            raise ValueError(
                f"{path}: baseline {study.baseline!r} is none of the variants "
                f"{', '.join(study.variants)}"
            )
        study.variants = {name: dict(deltas or {}) for name, deltas in study.variants.items()}
        study.iterations = study.iterations or [study.base_config(study.baseline).SOLVER.MAX_ITER]
        return study

    @property
    def calibration_budget(self) -> int:
        """The number of proposals at which mean scores and IoUs are kept: that nearest to 50."""
        return min(self.budgets, key=lambda budget: abs(budget - 50))

    def runs(self) -> List[Run]:
        """List the runs: the first seed of all variants first."""
        every = [
            Run(variant, iterations, seed)
            for variant, deltas in self.variants.items()
            for iterations in self.iterations
            for seed in deltas.get("seeds", self.seeds)
        ]
        return sorted(every, key=lambda run: run.seed)  # stable

    def config_file(self, variant: str) -> str:
        path = self.variants[variant].get("config", self.config)
        return os.path.normpath(os.path.join(self.folder, path))

    def base_config(self, variant: str) -> CfgNode:
        """Merge a variant's config file, the study's options and the variant's."""
        cfg = get_cfg()
        add_nrpn_config(cfg)
        merge_config_file(cfg, self.config_file(variant))
        cfg.merge_from_list(self._variant_options(variant))
        return cfg

    def _variant_options(self, variant: str) -> List[str]:
        own = {k: v for k, v in self.variants[variant].items() if k not in ("config", "seeds")}
        merged = {**self.options, **own}
        return [text for key, value in merged.items() for text in (key, str(value))]

    def run_options(self, run: Run) -> List[str]:
        """List the overrides of train_net.py, after its config file, but for OUTPUT_DIR.

        The learning rate falls at the same part of the schedule, whatever its length.
        """
        solver = self.base_config(run.variant).SOLVER
        steps = [round(step * run.iterations / solver.MAX_ITER) for step in solver.STEPS]
        return [
            *self._variant_options(run.variant),
            "SOLVER.MAX_ITER",
            str(run.iterations),
            "SOLVER.STEPS",
            str(tuple(steps)),
            "TEST.EVAL_PERIOD",
            "0",
            "DATASETS.TEST",  # evaluated afterwards, along the NMS threshold
            "()",
            "SEED",
            str(run.seed),
        ]

    def check(self, options: Sequence[str] = ()) -> None:
        """Build the config of every variant.

        Raises:
            ValueError: naming the variant whose values are wrong.
        """
        for variant in self.variants:
            try:
                cfg = self.base_config(variant)
                cfg.merge_from_list(list(options))
                check_nrpn_config(cfg)
            except (AssertionError, KeyError, ValueError) as error:
                raise ValueError(f"variant {variant!r}: {error}") from error


def read_results(path: str) -> List[Result]:
    """Read a CSV of :func:`write_results`; a file that is not there has no results.

    Raises:
        ValueError: for a file with other columns or values.
    """
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as f:
        rows = csv.DictReader(f)
        if tuple(rows.fieldnames or ()) != Result._fields:
            raise ValueError(f"{path} is not the results of a study: its columns differ")
        try:
            return [
                Result(**{**row, "iterations": int(row["iterations"]), "seed": int(row["seed"]),
                          "value": float(row["value"])})
                for row in rows
            ]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}") from error


def write_results(path: str, results: Iterable[Result]) -> None:
    """Write results as CSV, sorted, so that a new run changes no line of the others."""
    with atomic_open(path, "w") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(Result._fields)
        rows.writerows([*r[:-1], f"{r.value:.6g}"] for r in sorted(results, key=lambda r: r[:-1]))


def training_time(folder: str) -> Optional[float]:
    """Find the median seconds per iteration of a run, from its metrics.json; None without one."""
    path = os.path.join(folder, "metrics.json")
    if not os.path.exists(path):
        return None
    with open(path) as f:
        times = [json.loads(line).get("time") for line in f if line.strip()]
    times = [t for t in times if t is not None]
    return median(times) if times else None


def run_study(
    study: Study,
    *,
    train: Sequence[str],
    evaluate: Sequence[str],
    jobs: int = 1,
    threads: int = 1,
    options: Sequence[str] = (),
) -> Tuple[List[Result], Dict[Run, str]]:
    """Train and evaluate what has no results yet, each run in processes of its own.

    A training that was interrupted is resumed, one that has ended is not repeated, and a run whose
    results are in OUTPUT/results.csv needs no folder any more.

    Args:
        study: the runs.
        train: command of train_net.py, without its arguments.
        evaluate: command that writes FOLDER/<dataset>.csv, called with
            ``VARIANT ITERATIONS SEED``.
        jobs: runs at the same time.
        threads: of each run.
        options: overrides of all runs, such as the device, which the study file does not say.

    Returns:
        All results that there are, and what went wrong: run -> message.
    """
    path = os.path.join(study.output, "results.csv")
    os.makedirs(study.output, exist_ok=True)
    results, failures = read_results(path), {}
    done = {r.run for r in results if r.dataset == study.dataset}
    missing = [run for run in study.runs() if run not in done]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}

    def carry_out(run: Run) -> None:
        folder = os.path.join(os.path.abspath(study.output), run.folder)
        os.makedirs(folder, exist_ok=True)
        command = [*train, "--config-file", study.config_file(run.variant), "--resume"]
        command += [*study.run_options(run), *options, "OUTPUT_DIR", folder]
        with open(os.path.join(folder, "stdout.txt"), "a") as log:
            common = {"stdout": log, "stderr": log, "env": environment, "check": True}
            if not os.path.exists(os.path.join(folder, FINAL)):
                subprocess.run(command, **common)
            subprocess.run([*evaluate, *map(str, run)], **common)

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(carry_out, run): run for run in missing}
        for future in as_completed(futures):
            run = futures[future]
            folder = os.path.join(study.output, run.folder)
            try:
                future.result()
                new = read_results(os.path.join(folder, f"{study.dataset}.csv"))
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                failures[run] = f"{error}; see {os.path.join(folder, 'stdout.txt')}"
                logger.error("%s failed: %s", run.folder, failures[run])
                continue
            results += [r for r in new if r.run == run]
            write_results(path, results)
            logger.info("%s done, %d of %d", run.folder, len(done) + 1, len(study.runs()))
            done.add(run)
    return results, failures


def evaluate_run(study: Study, run: Run, folder: str) -> List[Result]:
    """Evaluate a run's last checkpoint and write FOLDER/<dataset>.csv.

    A detector's own results, at its own NMS threshold, are added as "AP50@K" and "AP@K" for its
    numbers of proposals K; they are in FOLDER/inference, too, for tools/compare_runs.py.

    Args:
        study: says on what, and at which budgets and thresholds.
        run: whose folder it is.
        folder: of the training, with config.yaml and model_final.pth.

    Returns:
        What was written.
    """
    cfg = get_cfg()
    add_nrpn_config(cfg)
    merge_config_file(cfg, os.path.join(folder, "config.yaml"))
    cfg.DATALOADER.NUM_WORKERS = 0
    register_datasets(cfg)
    model = build_model(cfg)
    NRPNCheckpointer(model).load(os.path.join(folder, FINAL))
    along_nms = evaluate_along_nms(
        model,
        build_detection_test_loader(cfg, study.dataset),
        study.dataset,
        nms_thresholds=study.nms_thresholds,
        budgets=study.budgets,
        iou_thresholds=study.iou_thresholds,
    )
    results = [
        Result(*run, study.dataset, f"{nms:g}", metric, value)
        for nms, metrics in along_nms.items()
        for metric, value in metrics.items()
        if not is_bin(metric) or metric.endswith(f"@{study.calibration_budget}")
    ]
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        cfg.OUTPUT_DIR, cfg.DATASETS.TEST = folder, (study.dataset,)
        nms = f"{cfg.MODEL.RPN.NMS_THRESH:g}"
        for task, metrics in Trainer.test(cfg, model).items():
            if task.startswith("bbox@"):
                _, budget = task.split("@")
                for name in ("AP50", "AP"):
                    metric = f"{name}@{budget}"
                    results.append(Result(*run, study.dataset, nms, metric, metrics[name]))
    seconds = training_time(folder)
    if seconds is not None:
        results.append(Result(*run, study.dataset, "", TIME, seconds))
    write_results(os.path.join(folder, f"{study.dataset}.csv"), results)
    return results
