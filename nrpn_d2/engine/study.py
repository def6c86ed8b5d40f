"""A study: variants of a config, several seeds each, under equal conditions, as one table.

    study.py: STUDY.yaml -> study_runs.py: a folder for each run -> study_results.py: results.csv
        -> study_report.py: tables and figures

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
    columns: ["AR@10", "R70@50", "R50@10 | 0.5"]  # of the tables; "| NMS threshold", or 0.7

With one seed all variants start from the same weights and see the same images in the same order,
flipped alike (the trainer's random numbers are a function of the seed and the iteration).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from ..utils.text_files import load_yaml
from .defaults import merge_cfg


class Run(NamedTuple):
    """A training of a study."""

    variant: str
    iterations: int
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.variant}_{self.iterations}_seed{self.seed}"


@dataclass
class Study:
    """What a study file says; see the head of the module."""

    config: str
    output: str
    dataset: str
    seeds: list[int]
    variants: dict[str, dict[str, Any]]
    baseline: str
    folder: str  # where the study file is
    iterations: Sequence[int] = ()
    options: dict[str, Any] = field(default_factory=dict)
    budgets: Sequence[int] = (5, 10, 20, 50, 100, 300)
    iou_thresholds: Sequence[float] = (0.5, 0.7, 0.9)
    nms_thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8)
    columns: Sequence[str] = ("AR@10", "AR@100", "R50@10", "R50@50", "R70@50", "background>0.7")

    @classmethod
    def read(cls, path: str) -> "Study":
        """Read a study file.

        Raises:
            ValueError: naming ``path``, for a file that is no study.
        """
        content = load_yaml(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} is not a study: it must consist of lines KEY: VALUE")
        known = set(cls.__dataclass_fields__) - {"folder"}
        unknown = set(content) - known
        if unknown:
            message = f"{path}: unknown {', '.join(sorted(map(str, unknown)))}"
            raise ValueError(f"{message}; the keys of a study are {', '.join(sorted(known))}")
        try:
            study = cls(**content, folder=os.path.dirname(os.path.abspath(path)))
        except TypeError as error:
            raise ValueError(f"{path}: {str(error).partition(') ')[2]}") from None
        if study.baseline not in study.variants:
            message = f"{path}: baseline {study.baseline!r} is none of the variants"
            raise ValueError(f"{message} {', '.join(study.variants)}")
        study.variants = {name: dict(deltas or {}) for name, deltas in study.variants.items()}
        study.iterations = study.iterations or [study.base_config(study.baseline).SOLVER.MAX_ITER]
        return study

    @property
    def calibration_budget(self) -> int:
        """The number of proposals at which mean scores and IoUs are kept: that nearest to 50."""
        return min(self.budgets, key=lambda budget: abs(budget - 50))

    def runs(self) -> list[Run]:
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

    def base_config(self, variant: str, options: Sequence[str] = ()) -> CfgNode:
        """Merge a variant's config file, the study's options, the variant's and others."""
        own = self._variant_options(variant)
        return merge_cfg(self.config_file(variant), [*own, *options])

    def _variant_options(self, variant: str) -> list[str]:
        own = {k: v for k, v in self.variants[variant].items() if k not in ("config", "seeds")}
        return _as_overrides({**self.options, **own})

    def run_options(self, run: Run) -> list[str]:
        """List the overrides of train_net.py, after its config file, but for OUTPUT_DIR.

        The learning rate falls at the same part of the schedule, whatever its length.
        """
        solver = self.base_config(run.variant).SOLVER
        steps = [round(step * run.iterations / solver.MAX_ITER) for step in solver.STEPS]
        options = {
            "SOLVER.MAX_ITER": run.iterations,
            "SOLVER.STEPS": tuple(steps),
            "TEST.EVAL_PERIOD": 0,
            "DATASETS.TEST": (),  # evaluated afterwards, along the NMS threshold
            "SEED": run.seed,
        }
        return [*self._variant_options(run.variant), *_as_overrides(options)]

    def check(self, options: Sequence[str] = ()) -> None:
        """Merge the config of every variant, and ``options``.

        Raises:
            ValueError: naming the variant whose values are wrong.
        """
        for variant in self.variants:
            try:
                self.base_config(variant, options)
            except ValueError as error:
                raise ValueError(f"variant {variant!r}: {error}") from error


def _as_overrides(options: dict[str, Any]) -> list[str]:
    return [text for key, value in options.items() for text in (key, str(value))]
