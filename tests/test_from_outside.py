"""What another project gets: the wheel, and the code of docs/extending.md run with it alone."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The folder of an installed wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for part in ("nrpn_d2", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / "source" / part, ignore=ignored)
    for part in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, folder / "source")
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", *command, "--wheel-dir", str(folder), str(folder / "source")],
        check=True,
    )
    (file,) = folder.glob("nrpn_d2-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def files(folder):
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def python(folder, environment, wheel, *arguments):
    """Run Python in ``folder``; of nrpn_d2 it can only import what is in the wheel."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(wheel), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=500,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_wheel_has_the_package_and_its_configs_and_nothing_else(wheel):
    assert files(wheel / "nrpn_d2" / "configs") == files(ROOT / "configs")
    assert files(wheel / "nrpn_d2") - files(ROOT / "nrpn_d2") == {
        Path("configs") / path for path in files(ROOT / "configs")
    }
    assert files(ROOT / "nrpn_d2") <= files(wheel / "nrpn_d2")
    assert {path.name for path in wheel.iterdir()} == {
        "nrpn_d2",
        *(path.name for path in wheel.glob("nrpn_d2-*.dist-info")),
    }


PROJECT = """
import nrpn_d2
from detectron2.config import get_cfg

cfg = get_cfg()
nrpn_d2.add_nrpn_config(cfg)
cfg.merge_from_file(nrpn_d2.get_config_file("voc_nrpn_vgg16.yaml"))
print(nrpn_d2.__file__, cfg.MODEL.PROPOSAL_GENERATOR.NAME, cfg.MODEL.BACKBONE.NAME)
try:
    nrpn_d2.get_config_file("voc_nrpn.yaml")
except ValueError as error:
    print(error)
"""


def test_a_project_with_the_wheel_gets_configs_by_name(wheel, tmp_path, process_environment):
    code, output = python(tmp_path, process_environment, wheel, "-c", PROJECT)
    assert code == 0, output
    assert f"{wheel}/nrpn_d2/__init__.py HardNegativeRPN build_vgg_backbone" in output
    assert re.search(r"no config 'voc_nrpn.yaml'; .*, voc_nrpn_vgg16.yaml", output)


def test_without_detectron2_the_import_says_how_to_get_it(wheel, tmp_path, process_environment):
    # -S leaves site-packages out
    code, output = python(tmp_path, process_environment, wheel, "-S", "-c", "import nrpn_d2")
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: nrpn_d2 needs Detectron2: pip install "), output
    assert "During handling" not in output


OPTIONS = """
MODEL.RPN.NEGATIVE_SAMPLER.NAME StillWrong MODEL.RPN.OBJECTNESS_LOSS.NAME SmoothBCE
MODEL.NRPN.FP_SELECT beside_objects
DATASETS.OWN [['signs','signs.csv']] DATASETS.TRAIN ('signs',) DATASETS.TEST ('signs',)
MODEL.ROI_HEADS.NUM_CLASSES 2 MODEL.VGG.DEPTHS [1,1,1,1] MODEL.NRPN.WARMUP_ITERS 1
INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 DATALOADER.NUM_WORKERS 0
SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 OUTPUT_DIR run
"""


def test_the_code_of_extending_md_trains_and_evaluates(wheel, tmp_path, process_environment):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.S)
    for block in blocks:
        (tmp_path / re.match(r"# (\w+\.py)", block)[1]).write_text(block)
    lines = ["image,x0,y0,x1,y1,class", "a.png,4,4,40,40,stop", "a.png,50,8,90,60,yield"]
    (tmp_path / "signs.csv").write_text("\n".join([*lines, "b.png,4,4,40,40,stop"]))
    for name in ("a.png", "b.png"):
        Image.new("RGB", (96, 64), (90, 120, 150)).save(tmp_path / name)
    code, output = python(tmp_path, process_environment, wheel, "train.py", *OPTIONS.split())
    assert code == 0, output
    lines = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    (training,) = [line for line in map(json.loads, lines) if "total_loss" in line]
    assert training["nrpn/hard_negatives"] > 0 and training["nrpn/false_positives"] > 0
    results = json.loads((tmp_path / "run" / "inference" / "results.json").read_text())
    assert results["dataset"] == "signs" and results["metrics"]["confident"]["mean"] == 0
