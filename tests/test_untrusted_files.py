"""Every way in which a file from outside reaches the program: nothing in it is run.

A row has a hostile file, the name that its error must contain, and what reads it. READERS names
every module that opens files; a test compares it with the source.
"""

import ast
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import (
    DEEP_JSON,
    EXTERNAL_XML,
    POSTSCRIPT,
    XML_BOMB,
    TouchesAFile,
    hostile_yaml,
    png_of_size,
    yaml_bomb,
)
from small_models import small_cfg

import nrpn_d2
from nrpn_d2.data.proposal_files import Proposals, load_proposals, save_proposals
from nrpn_d2.data.shapes.dataset import make_shapes
from nrpn_d2.engine.resume import config_changes
from nrpn_d2.engine.study import Study
from nrpn_d2.engine.study_results import training_time
from nrpn_d2.utils.config_file import merge_config_file
from nrpn_d2.utils.text_files import load_json, load_yaml

ROOT = Path(nrpn_d2.__file__).parents[1]
# What opens files, as it stands in the source
OPENERS = re.compile(
    r"(builtins\.)?open|(torch|pickle|np|json|yaml)\.(safe_|unsafe_)?loads?|json\.loads|.*Unpickler.*"
    r"|_ArraysOnly|_Naming|(PIL\.)?Image\.open|(PathManager|zipfile)\.\w*open|.*ZipFile"
    r"|(detection_utils\.|utils\.)?read_image|cv2\.(imread|VideoCapture)"
    r"|.*\.(fromstring|parse|merge_from_file|loadtxt|genfromtxt|read_text|read_bytes|from_file)"
)

# module -> the openers that it calls; hostile files for them are in WAYS, or in the file named
READERS = {
    "nrpn_d2/checkpoint/checkpointer.py": {"open"},
    "nrpn_d2/data/corrections.py": {"open"},  # tests/data
    "nrpn_d2/data/image_header.py": {"open", "Image.open"},
    "nrpn_d2/data/inspection/image.py": {"Image.open"},  # tests/tools
    "nrpn_d2/data/inspection/page.py": {"detection_utils.read_image"},  # tests/tools
    "nrpn_d2/data/mapper.py": {"read_image"},
    "nrpn_d2/data/voc/xml.py": {"defusedxml.ElementTree.fromstring"},
    "nrpn_d2/deploy/backgrounds.py": {"read_image"},
    "nrpn_d2/deploy/sources.py": {"detection_utils.read_image", "cv2.VideoCapture"},
    "nrpn_d2/deploy/predict_files.py": {"read_image"},
    "nrpn_d2/engine/resume.py": {"yaml.safe_load"},
    "nrpn_d2/engine/wandb_hook.py": {"open", "yaml.safe_load"},  # what the run itself wrote
    "nrpn_d2/engine/study_results.py": {"open", "json.loads"},
    "nrpn_d2/evaluation/audit_page.py": {
        *("read_image", "resources.files(utils).joinpath('audit.js').read_text"),
    },
    "nrpn_d2/evaluation/page/folder.py": {"open", "json.loads", "yaml.safe_load"},
    "nrpn_d2/evaluation/page/pages.py": {"Image.open"},
    "nrpn_d2/evaluation/pictures.py": {"read_image"},
    "nrpn_d2/evaluation/proposal_methods.py": {"read_image"},
    "nrpn_d2/utils/config_file.py": {"PathManager.open", "yaml.load", "cfg.merge_from_file"},
    "nrpn_d2/utils/page.py": {  # a file of the package
        "read_image",
        "resources.files(__package__).joinpath(f'page.{suffix}').read_text",
    },
    "nrpn_d2/utils/safe_load.py": {
        *("open", "torch.load", "zipfile.ZipFile", "_ArraysOnly", "_Naming"),  # tests/utils
    },
    "nrpn_d2/utils/saving.py": {"open"},
    "nrpn_d2/utils/text_files.py": {"open", "yaml.load", "json.loads"},
    "tools/demo.py": {"open"},
    "tools/export_model.py": {"read_image"},
    "tools/precompute_proposals.py": {"read_image"},
}


class Case:
    """A run that would work, and the files that are to be hostile.

    Attributes:
        marker (Path): what hostile files make.
    """

    def __init__(self, run):
        self.run, self.folder = run, run.folder
        self.marker = run.folder / "hacked"

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, (bytes, str)):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        elif path.suffix == ".pth":
            torch.save(content, path)
        else:
            path.write_bytes(pickle.dumps(content))
        return path

    def attack(self):
        return TouchesAFile(self.marker)

    def weights(self, name, *flags):
        path = self.write(name, {"model": {"a": torch.zeros(1)}, "x": self.attack()})
        self.run.flags += flags
        self.run.options["MODEL.WEIGHTS"] = str(path)
        self.run.options["DATASETS.TEST"] = "('own_train',)"
        self.run.train()

    def resumed(self, name, tag):
        self.write(f"out/{name}", {"model": {}, "trainer": self.attack(), "best": self.attack()})
        self.write("out/last_checkpoint", tag)
        self.run.flags.append("--resume")
        self.run.train()

    def proposals(self, key):
        path = self.write("bad.pkl", {"ids": ["a"], "boxes": [self.attack()]})
        self.run.options["MODEL.LOAD_PROPOSALS"] = "True"
        self.run.options["MODEL.META_ARCHITECTURE"] = "GeneralizedRCNN"
        self.run.options["MODEL.PROPOSAL_GENERATOR.NAME"] = "PrecomputedProposals"
        good = str(self.folder / "good.pkl")
        save_proposals(good, {"a": Proposals(np.array([[0.0, 0, 9, 9]]), np.array([1.0]))})
        for split in ("TRAIN", "TEST"):
            self.run.options[f"DATASETS.PROPOSAL_FILES_{split}"] = f"('{good}',)"
        self.run.options[f"DATASETS.PROPOSAL_FILES_{key}"] = f"('{path}',)"
        self.run.options["DATASETS.TEST"] = "('own_test',)"
        self.run.train()

    def config(self, content):
        merge_config_file(small_cfg(), str(self.write("bad.yaml", content)))

    def data(self, name, content):
        self.write(getattr(self.run, name), content)
        self.run.train()


def best_of_a_resumed_run(case):
    case.run.options["TEST.EVAL_PERIOD"] = "1"
    case.run.options["DATASETS.TEST"] = "('own_test',)"
    case.run.train()
    case.write("out/model_best.pth", {"best": case.attack()})
    case.run.flags.append("--resume")
    case.run.options["SOLVER.MAX_ITER"] = "2"
    case.run.train()


def base_of_a_config(case):
    case.write("base.yaml", hostile_yaml(case.marker))
    case.config("_BASE_: base.yaml\n")


WAYS = {
    "weights .pth": (lambda case: case.weights("bad.pth"), "bad.pth"),
    "weights .pkl": (lambda case: case.weights("bad.pkl"), "bad.pkl"),
    "weights to evaluate": (lambda case: case.weights("bad.pth", "--eval-only"), "bad.pth"),
    "last checkpoint": (lambda case: case.resumed("model_1.pth", "model_1.pth"), "model_1.pth"),
    "last_checkpoint": (lambda case: case.resumed("model_1.pth", b"\xff\0"), "last_checkpoint"),
    "config in a checkpoint": (
        lambda case: config_changes(
            str(case.write("bad.pth", {"trainer": {"config": "[" * 9000}})), small_cfg()
        ),
        "bad.pth",
    ),
    "best checkpoint": (best_of_a_resumed_run, "model_best.pth"),
    "proposals to train on": (lambda case: case.proposals("TRAIN"), "bad.pkl"),
    "proposals to test on": (lambda case: case.proposals("TEST"), "bad.pkl"),
    "proposals .pkl": (
        lambda case: load_proposals(str(case.write("bad.pkl", case.attack()))),
        "bad.pkl",
    ),
    "proposals .json": (
        lambda case: load_proposals(str(case.write("bad.json", DEEP_JSON))),
        "bad.json",
    ),
    "config": (lambda case: case.config(hostile_yaml(case.marker)), "bad.yaml"),
    "base of a config": (base_of_a_config, "bad.yaml"),
    "YAML": (
        lambda case: load_yaml(str(case.write("bad.yaml", hostile_yaml(case.marker)))),
        "bad.yaml",
    ),
    "YAML bomb": (lambda case: load_yaml(str(case.write("bad.yaml", yaml_bomb()))), "bad.yaml"),
    "JSON": (lambda case: load_json(str(case.write("bad.json", DEEP_JSON))), "bad.json"),
    "study": (
        lambda case: Study.read(str(case.write("bad.yaml", hostile_yaml(case.marker)))),
        "bad.yaml",
    ),
    "metrics of a run": (
        lambda case: training_time(str(case.write("run/metrics.json", DEEP_JSON).parent)),
        "metrics.json",
    ),
    "XML bomb": (lambda case: case.data("xml", XML_BOMB), "a.xml"),
    "external entity": (lambda case: case.data("xml", EXTERNAL_XML), "a.xml"),
    "split": (lambda case: case.data("split", "../../../etc/passwd"), "train.txt"),
    "image that is a program": (lambda case: case.data("image", POSTSCRIPT), "a.jpg"),
    "image bomb": (lambda case: case.data("image", png_of_size(60_000, 60_000)), "a.jpg"),
    "spec of shapes": (
        lambda case: make_shapes(str(case.write("shapes/shapes.json", DEEP_JSON).parent)),
        "shapes.json",
    ),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_is_run(run, name, capsys):
    attempt, file_name = WAYS[name]
    case = Case(run)
    with pytest.raises((ValueError, RuntimeError, SystemExit)) as error:
        attempt(case)
    assert file_name in capsys.readouterr().err + str(error.value)
    assert not case.marker.exists()


def opened_by(path):
    """The openers that a module calls, without those that only write."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    names = set()
    for call in calls:
        name = ast.unparse(call.func)
        modes = [arg.value for arg in call.args[1:] if isinstance(arg, ast.Constant)]
        if OPENERS.fullmatch(name) and not any(str(mode)[0] in "wax" for mode in modes):
            names.add(name)
    return names


def test_the_list_is_complete():
    """Whoever opens files in another place adds it, with a hostile file in WAYS."""
    sources = [*(ROOT / "nrpn_d2").rglob("*.py"), *(ROOT / "tools").glob("*.py")]
    for path in sources:
        module = str(path.relative_to(ROOT))
        assert opened_by(path) <= READERS.get(module, set()), module
