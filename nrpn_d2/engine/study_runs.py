"""The runs of a study: trained and evaluated, each in processes of its own."""

import logging
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from detectron2.data import build_detection_test_loader

from ..checkpoint.trained_model import load_model
from ..evaluation.nms_sweep import evaluate_along_nms
from ..evaluation.score_evaluator import is_bin
from .defaults import build_cfg
from .study import Run, Study
from .study_results import TIME, Result, read_results, training_time, write_results
from .trainer import Trainer

logger = logging.getLogger(__name__)

FINAL = "model_final.pth"


def run_study(
    study: Study,
    *,
    train: Sequence[str],
    evaluate: Sequence[str],
    jobs: int = 1,
    threads: int = 1,
    options: Sequence[str] = (),
) -> tuple[list[Result], dict[Run, str]]:
    """Train and evaluate what has no results yet, each run in processes of its own.

    A training that was interrupted is resumed, one that has ended is not repeated, and a run whose
    results are in OUTPUT/results.csv needs no folder any more.

    Args:
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
            done.add(run)
            logger.info("%s done, %d of %d", run.folder, len(done), len(study.runs()))
    return results, failures


def evaluate_run(study: Study, run: Run, folder: str) -> None:
    """Evaluate a run's last checkpoint and write FOLDER/<dataset>.csv.

    A detector's own results, at its own NMS threshold, are added as "AP50@K" and "AP@K" for its
    numbers of proposals K; they are in FOLDER/inference, too, for tools/compare_runs.py.

    Args:
        folder: of the training, with config.yaml and model_final.pth.
    """
    options = ["MODEL.WEIGHTS", os.path.join(folder, FINAL), "OUTPUT_DIR", folder]
    options += ["DATASETS.TEST", str((study.dataset,)), "DATALOADER.NUM_WORKERS", "0"]
    cfg = build_cfg(os.path.join(folder, "config.yaml"), options)
    model = load_model(cfg)
    along_nms = evaluate_along_nms(
        model,
        build_detection_test_loader(cfg, study.dataset),
        study.dataset,
        nms_thresholds=study.nms_thresholds,
        budgets=study.budgets,
        iou_thresholds=study.iou_thresholds,
        left_out=cfg.DATASETS.LEFT_OUT,
    )
    results = [
        Result(*run, study.dataset, f"{nms:g}", metric, value)
        for nms, metrics in along_nms.items()
        for metric, value in metrics.items()
        if not is_bin(metric) or metric.endswith(f"@{study.calibration_budget}")
    ]
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        nms = f"{cfg.MODEL.RPN.NMS_THRESH:g}"
        results += [
            Result(*run, study.dataset, nms, task.replace("bbox", name), metrics[name])
            for task, metrics in Trainer.test(cfg, model).items()
            if task.startswith("bbox@")
            for name in ("AP50", "AP")
        ]
    seconds = training_time(folder)
    if seconds is not None:
        results.append(Result(*run, study.dataset, "", TIME, seconds))
    write_results(os.path.join(folder, f"{study.dataset}.csv"), results)
