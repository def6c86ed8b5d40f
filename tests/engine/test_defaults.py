"""From the command line to a run: what is logged where, and which errors are the user's."""

import os
import subprocess
import sys

import pytest
import torch
from small_run import ROOT, Run

import train_net
from nrpn_d2.engine.command_line import DEBUG, is_bad_input, message_of, run
from nrpn_d2.engine.defaults import build_cfg

SCRIPTS = [ROOT / "train_net.py", *sorted((ROOT / "tools").glob("*.py"))]
TOOLS = [str(path) for path in SCRIPTS if "__main__" in path.read_text()]


@pytest.mark.parametrize("tool", TOOLS, ids=os.path.basename)
def test_help_needs_no_torch(tool):
    """So it answers at once; it says first what the tool is for."""
    code = f"""import runpy, sys
sys.path.insert(0, {os.path.dirname(tool)!r})  # as Python does
sys.argv = [{tool!r}, "--help"]
try: runpy.run_path({tool!r}, run_name="__main__")
except SystemExit: print("torch" in sys.modules)"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    lines = printed.splitlines()
    with open(tool) as f:
        purpose = f.read().split('"""')[1].splitlines()[0]
    assert lines[0] == purpose and lines[-1] == "False"


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], "the following arguments are required: --config-file"),
        (["--config-file", "x", "--reusme"], "unrecognized arguments: --reusme"),
    ],
)
def test_usage(arguments, expected, capsys):
    with pytest.raises(SystemExit):
        train_net.parse_args(arguments)
    assert capsys.readouterr().err.endswith(f" error: {expected}\n")


def test_a_users_error(tmp_path):
    """One line, and nearly nothing before it."""
    start = Run(tmp_path)
    start.options["DATASETS.TRAIN"] = "('own_trian',)"
    status, printed, errors = start.train_elsewhere()
    assert status == 1 and "did you mean 'own_train'" in errors
    assert len(errors.splitlines()) == 1 and len(printed.splitlines()) <= 3, printed


def raised(function):
    with pytest.raises(Exception) as error:
        function()
    return error.value


def users_augmentation():
    raise ValueError("not ours")


def test_bugs_are_not_bad_input(monkeypatch):
    bad = raised(lambda: build_cfg(opts=["MODEL.NRPN.FP_SCORE", "2.0"]))
    assert is_bad_input(bad) and message_of(bad).startswith("MODEL.NRPN.FP_SCORE is 2")
    for bug in (users_augmentation, lambda: {}["x"], lambda: int("x"), lambda: build_cfg(opts=3)):
        assert not is_bad_input(raised(bug)), bug
    with pytest.raises(ValueError, match="not ours"):
        run(lambda args: users_augmentation(), None)
    with pytest.raises(SystemExit, match="^error: MODEL.NRPN.FP_SCORE is 2"):
        run(lambda args: build_cfg(opts=["MODEL.NRPN.FP_SCORE", "2.0"]), None)
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(ValueError, match="^MODEL.NRPN.FP_SCORE is 2"):
        run(lambda args: build_cfg(opts=["MODEL.NRPN.FP_SCORE", "2.0"]), None)


def test_options_may_stand_anywhere():
    args = train_net.parse_args(
        ["A", "1", "--eval-only", "B", "-2", "--config-file", "x", "C", "3"]
    )
    assert args.opts == ["A", "1", "B", "-2", "C", "3"] and args.eval_only


def test_the_log(tmp_path):
    """Pixel settings and dumps are in log.txt, without colours; no dump is on the console."""
    start = Run(tmp_path)
    pixels = {"format": "RGB", "mean": [1.0, 2.0, 3.0], "std": [4.0, 4.0, 4.0]}
    start.options.update({"MODEL.PIXEL_MEAN": "[103.53, 116.28, 123.675]", "INPUT.FORMAT": "BGR"})
    start.options["MODEL.PIXEL_STD"] = "[1.0, 1.0, 1.0]"
    weight = {"backbone.conv1_1.weight": torch.zeros(8, 3, 3, 3)}
    start.weights({"model": weight, "pixels": pixels})
    status, printed, errors = start.train_elsewhere()
    assert status == 0 and "FutureWarning" not in errors and "total_loss" in printed
    log = (start.out / "log.txt").read_text()
    assert "MODEL.PIXEL_STD set to (4.0, 4.0, 4.0), as" in log and "\x1b" not in log
    assert "Running with full config" in log and "GeneralizedRCNN(" in log
    for dump in ("FP_SCORE", "Environment info", "(conv1_1)", "\x1b"):
        assert dump not in printed
