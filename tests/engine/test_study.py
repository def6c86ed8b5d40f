"""Studies: what is run, that conditions are equal, what is computed from seeds."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from small_models import small_cfg
from small_training import CLASSES, training_cfg, write_images
from study import parse_args

from nrpn_d2 import add_nrpn_config
from nrpn_d2.engine.study import Run, Study
from nrpn_d2.engine.study_report import read_column
from nrpn_d2.engine.study_results import TIME, Result, read_results, training_time, write_results
from nrpn_d2.engine.study_runs import run_study
from nrpn_d2.engine.trainer import Trainer
from nrpn_d2.utils.seeding import seed_all

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))


def study_file(folder, **content):
    """A study of two variants, with its config file."""
    config = {"SOLVER": {"MAX_ITER": 40, "STEPS": [30]}, "VERSION": 2}
    (folder / "base.yaml").write_text(yaml.safe_dump(config))
    content = {
        "config": "base.yaml",
        "output": str(folder / "out"),
        "dataset": "small_test",
        "seeds": [1, 2],
        "variants": {"rpn": {}, "ohem": {"MODEL.RPN.NEGATIVE_SAMPLER.NAME": "OHEM"}},
        "baseline": "rpn",
        **content,
    }
    path = folder / "study.yaml"
    content = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


# ---- What is run


def test_seed_1_of_all_variants_comes_first(tmp_path):
    variants = {"rpn": None, "ohem": {"seeds": [2]}}
    study = Study.read(study_file(tmp_path, variants=variants, iterations=[40, 80]))
    assert [run.folder for run in study.runs()] == [
        "rpn_40_seed1",
        "rpn_80_seed1",
        "rpn_40_seed2",
        "rpn_80_seed2",
        "ohem_40_seed2",
        "ohem_80_seed2",
    ]


def test_options_of_a_run(tmp_path):
    path = study_file(tmp_path, options={"SOLVER.BASE_LR": 0.5, "MODEL.RPN.NMS_THRESH": 0.6})
    study = Study.read(path)
    assert study.iterations == [40]  # the config's
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.merge_from_list(study.run_options(Run("ohem", 80, 7)))
    assert cfg.MODEL.RPN.NEGATIVE_SAMPLER.NAME == "OHEM" and cfg.SEED == 7
    assert (cfg.SOLVER.BASE_LR, cfg.MODEL.RPN.NMS_THRESH) == (0.5, 0.6)
    # the learning rate falls after three quarters, as in the config
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (80, (60,))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"baseline": "x"}, "baseline 'x' is none of the variants rpn, ohem"),
        ({"dataset": None}, "missing 1 required .*'dataset'"),
        ({"sedes": [1]}, "unknown sedes; the keys of a study are baseline, budgets"),
    ],
)
def test_a_study_that_cannot_be_run(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Study.read(study_file(tmp_path, **change))


def test_a_file_that_is_no_study(tmp_path):
    (tmp_path / "list.yaml").write_text("[1, 2")
    with pytest.raises(ValueError, match="list.yaml: invalid YAML"):
        Study.read(str(tmp_path / "list.yaml"))
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match="list.yaml is not a study"):
        Study.read(str(tmp_path / "list.yaml"))


def test_wrong_values_name_the_variant(tmp_path):
    variants = {"rpn": {}, "typo": {"MODEL.NRPN.FP_BY": "bset"}}
    with pytest.raises(ValueError, match="variant 'typo': MODEL.NRPN.FP_BY is 'bset'"):
        Study.read(study_file(tmp_path, variants=variants)).check()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_project(path):
    study = Study.read(str(path))
    study.check()
    for column in study.columns:
        read_column(column)


# A training that fails where a file says so, and otherwise counts its calls
TRAIN = """
import os, sys
folder = sys.argv[sys.argv.index("OUTPUT_DIR") + 1]
assert "--resume" in sys.argv
if os.path.exists(folder + ".fails"):
    sys.exit("it failed")
open(folder + "/calls", "a").write("x")
open(folder + "/model_final.pth", "w").close()
"""
# ... and an evaluation of it
EVALUATE = f"""
import sys
folder, variant, iterations, seed = sys.argv[1:]
with open(f"{{folder}}/{{variant}}_{{iterations}}_seed{{seed}}/small_test.csv", "w") as f:
    print("{",".join(Result._fields)}", file=f)
    value = int(seed) + (variant == "ohem")
    print(variant, iterations, seed, "small_test", "0.7", "AR@10", value, sep=",", file=f)
"""


def test_a_failure_stops_no_other_run_and_is_made_up_for(tmp_path):
    study = Study.read(study_file(tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    (out / "ohem_40_seed1.fails").touch()
    commands = {
        "train": [sys.executable, "-c", TRAIN],
        "evaluate": [sys.executable, "-c", EVALUATE, str(out)],
    }
    results, failures = run_study(study, jobs=2, **commands)
    assert [run.folder for run in failures] == ["ohem_40_seed1"]
    assert "stdout.txt" in failures[Run("ohem", 40, 1)]
    assert "it failed" in (out / "ohem_40_seed1" / "stdout.txt").read_text()
    assert len(results) == 3 and read_results(str(out / "results.csv")) == sorted(results)

    # Again: only the run that failed is trained, also where the others' folders are gone
    (out / "ohem_40_seed1.fails").unlink()
    for path in (out / "rpn_40_seed2").iterdir():
        path.unlink()
    results, failures = run_study(study, **commands)
    assert not failures and {(r.variant, r.seed): r.value for r in results} == {
        ("rpn", 1): 1,
        ("rpn", 2): 2,
        ("ohem", 1): 2,
        ("ohem", 2): 3,
    }
    assert not (out / "rpn_40_seed2" / "calls").exists()
    assert (out / "ohem_40_seed1" / "calls").read_text() == "x"


def test_results_come_back(tmp_path):
    results = [
        Result("b", 40, 2, "data", "0.7", "R50@10 | 0.5", 12.5),
        Result("b", 40, 10, "data", "", TIME, 0.25),
        Result("a", 40, 1, "data", "0.5", "AR@10", math.nan),
    ]
    path = str(tmp_path / "results.csv")
    write_results(path, results)
    back = read_results(path)
    assert back[1:] == results[:2] and math.isnan(back[0].value)  # sorted, seeds as numbers
    assert read_results(str(tmp_path / "none.csv")) == []
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="other.csv is not the results of a study"):
        read_results(str(tmp_path / "other.csv"))


def test_training_time(tmp_path):
    lines = ['{"iteration": 19, "time": 0.5}', '{"iteration": 19}', '{"time": 0.7}', '{"time": 3}']
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    assert training_time(str(tmp_path)) == 0.7
    assert training_time(str(tmp_path / "none")) is None


# ---- Equal conditions

VARIANTS = {
    "random": {"MODEL__RPN__NEGATIVE_SAMPLER__NAME": "Random"},
    "nrpn": {"MODEL__RPN__NEGATIVE_SAMPLER__NAME": "NRPN", "MODEL__NRPN__FALSE_ALARMS": 8},
    "qfl": {
        "MODEL__RPN__NEGATIVE_SAMPLER__NAME": "All",
        "MODEL__RPN__OBJECTNESS_LOSS__NAME": "QualityFocal",
    },
}


def seen_by(folder, output, overrides):
    """What a run of a variant is shown in four training steps."""
    seen = []

    class Recording(Trainer):
        @classmethod
        def build_train_loader(cls, cfg):
            loader = super().build_train_loader(cfg)
            mapper = loader.mapper

            def recorded(record):
                seen.append(mapper(record))
                return seen[-1]

            loader.mapper = recorded
            return loader

    schedule = {"SOLVER__MAX_ITER": 4, "SOLVER__STEPS": (3,)}
    trainer = Recording(training_cfg(folder, output, **schedule, **overrides))
    trainer.resume_or_load(resume=False)
    trainer.train()
    return [(x["image_id"], x["image"], x["instances"].gt_boxes.tensor) for x in seen]


def test_variants_see_the_same_images_in_the_same_order(tmp_path):
    folder = write_images(tmp_path / "data", count=7)
    seen = {n: seen_by(folder, tmp_path / n, overrides) for n, overrides in VARIANTS.items()}
    assert len(seen["random"]) >= 8
    for other in ("nrpn", "qfl"):
        for (name, image, boxes), (name2, image2, boxes2) in zip(seen["random"], seen[other]):
            assert name == name2 and torch.equal(image, image2) and torch.equal(boxes, boxes2)
    other_seed = seen_by(folder, tmp_path / "seed", {**VARIANTS["random"], "SEED": 2})
    assert [x[0] for x in other_seed] != [x[0] for x in seen["random"]]


def test_variants_start_from_the_same_weights():
    models = []
    for overrides in VARIANTS.values():
        seed_all(1)
        models.append(build_model(small_cfg(meta_architecture="ProposalNetwork", **overrides)))
    for name, value in models[0].state_dict().items():
        for model in models[1:]:
            assert torch.equal(value, model.state_dict()[name]), name


# ---- All of it


@pytest.mark.parametrize("line", ["S.yaml --jobs 2 KEY 1", "--jobs 2 S.yaml -- KEY 1"])
def test_overrides_on_the_command_line(line):
    args = parse_args(line.split())
    assert (args.study, args.jobs, args.opts) == ("S.yaml", 2, ["KEY", "1"])


def test_command_line(tmp_path, process_environment):
    """From the study file to the table, with trainings of six iterations."""
    root = write_images(tmp_path / "data")
    cfg = training_cfg(root, tmp_path / "unused")
    cfg.DATASETS.VOC_NAME, cfg.DATASETS.VOC_ROOT = "tiny", str(root)
    cfg.DATASETS.VOC_CLASSES, cfg.DATASETS.TRAIN = CLASSES, ("tiny_train",)
    path = study_file(
        tmp_path,
        dataset="tiny_test",
        seeds=[1],
        iterations=[6],
        variants={
            "rpn": {"MODEL.RPN.NEGATIVE_SAMPLER.NAME": "Random"},
            "lost": {"MODEL.WEIGHTS": "none.pth"},
        },
        nms_thresholds=[0.5, 0.7],
        columns=["AR@10"],
    )
    (tmp_path / "base.yaml").write_text(cfg.dump())
    command = [sys.executable, str(ROOT / "tools" / "study.py"), path, "--jobs", "2"]
    run = subprocess.run(
        command, cwd=tmp_path, env=process_environment, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 1 and "lost_6_seed1: Command" in run.stderr, run.stderr[-2000:]
    assert "| rpn | 1 | " in run.stdout
    results = read_results(str(tmp_path / "out" / "results.csv"))
    assert {r.nms for r in results} == {"0.5", "0.7", ""} and {r.seed for r in results} == {1}
    metrics = {r.metric for r in results}
    assert {"AR@300", "R90@5", "R70s@50", "background>0.9", "ECE@50", TIME} <= metrics
    assert {"AP50@50", "AP@300"} <= metrics  # of a detector
    assert (tmp_path / "out" / "rpn_6_seed1" / "inference" / "results.json").exists()
