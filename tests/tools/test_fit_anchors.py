"""tools/fit_anchors.py, and the warning of a training whose anchors do not fit."""

import fit_anchors
import pytest
import yaml
from detectron2.config import CfgNode


def test_what_it_writes_can_be_merged_and_fits(run, capsys):
    sizes = [(10, 10), (12, 24), (40, 20), (30, 30), (20, 40), (44, 44)]
    run.objects(*[("cat", (1, 1, w, h)) for w, h in sizes])
    out = run.folder / "anchors"
    options = [word for pair in run.options.items() for word in pair]
    command = ["--config-file", str(run.config), "--k", "2..4", "--output", str(out), *options]
    fit_anchors.main(fit_anchors.parse_args(command))
    printed = capsys.readouterr().out
    assert "6 objects of own_train" in printed and "present 9" in printed
    assert (out / "anchors.yaml").read_text() in printed
    anchors = CfgNode(yaml.safe_load((out / "anchors.yaml").read_text())).MODEL.ANCHOR_GENERATOR
    assert 2 <= len(anchors.SIZES[0]) * len(anchors.ASPECT_RATIOS[0]) <= 4
    assert (out / "anchors.png").stat().st_size > 1000


@pytest.mark.parametrize("k", ["0", "3..2", "x", "3..9999"])
def test_bad_k(k, capsys):
    with pytest.raises(SystemExit) as error:
        fit_anchors.parse_args(["--config-file", "x.yaml", "--k", k])
    assert error.value.code == 2 and repr(k) in capsys.readouterr().err


@pytest.mark.parametrize("sizes, warns", [("[[30]]", False), ("[[8]]", True)])
def test_training_warns_of_anchors_out_of_reach(run, sizes, warns):
    run.objects(("cat", (11, 6, 40, 35)))
    run.options["MODEL.ANCHOR_GENERATOR.SIZES"] = sizes
    run.train()
    log = (run.out / "log.txt").read_text()
    assert ("100 % of the objects in own_train" in log) == warns
