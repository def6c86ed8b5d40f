"""install/detectron2_repairs.py on made-up sources, and the stand-in for Detectron2's C++."""

import re
import subprocess
import sys
from pathlib import Path

import detectron2_repairs as repairs
import pytest

ROOT = Path(__file__).resolve().parents[2]
HOOKS = "detectron2/engine/hooks.py"
PANOPTIC = "projects/Panoptic-DeepLab/panoptic_deeplab/post_processing.py"

# repair -> {file: (made-up text before, after)}; of the other repairs, tests of the installed
# Detectron2 see the effect: test_detectron2.py, tests/engine/test_launch.py
MADE_UP = {
    repairs.numpy_aliases: {
        "detectron2/a.py": ("x.astype(np.bool) + np.bool_(1)\n", "x.astype(bool) + np.bool_(1)\n"),
        "projects/b.py": ("np.zeros(3, dtype=np.float)\n", "np.zeros(3, dtype=float)\n"),
        "detectron2/c.py": ("np.floating, np.interp\n", "np.floating, np.interp\n"),
    },
    repairs.caffe2_export: {
        "detectron2/export/__init__.py": (
            "from .api import *\nfrom .flatten import X\n",
            "try:\n    from caffe2.proto import caffe2_pb2 as _caffe2_pb2\nexcept ImportError:\n"
            "    pass\nelse:\n    from .api import *\nfrom .flatten import X\n",
        )
    },
    repairs.model_zoo_files: {
        "detectron2/model_zoo/model_zoo.py": (
            "import os\nimport pkg_resources\n"
            "    f = pkg_resources.resource_filename(\n"
            '        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )\n',
            "import os\n    f = "
            'os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", config_path)\n',
        )
    },
    repairs.meshgrid_indexing: {
        "detectron2/modeling/anchor_generator.py": (
            "y, x = torch.meshgrid(shifts_y, shifts_x)",
            'y, x = torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        ),
        PANOPTIC: (
            "        torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n    )",
            "        torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n"
            '        indexing="ij",\n    )',
        ),
    },
    repairs.byte_storage: {
        "detectron2/utils/comm.py": (
            "    storage = torch.ByteStorage.from_buffer(buffer)\n"
            "    tensor = torch.ByteTensor(storage).to(device=device)\n    return tensor\n",
            "    tensor = torch.frombuffer(bytearray(buffer), dtype=torch.uint8)"
            ".to(device=device)\n"
            "    return tensor\n",
        )
    },
    repairs.boxes_from_arrays: {
        "detectron2/data/detection_utils.py": (
            "    target.gt_boxes = Boxes(boxes)\n",
            "    target.gt_boxes = Boxes(np.stack(boxes) if boxes else boxes)\n",
        )
    },
    repairs.profiler_hooks: {
        HOOKS: (
            "        self._profiler.__exit__(None, None, None)\n        export()\n"
            "p = profile(use_cuda=self._use_cuda)\n",
            "        self._profiler.__exit__(None, None, None)\n"
            '        if getattr(self, "_save_tensorboard", False):\n            return\n'
            "        export()\n"
            'p = profile(use_device="cuda" if self._use_cuda else None)\n',
        )
    },
}


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("repair", MADE_UP, ids=lambda repair: repair.__name__)
def test_a_repair_changes_what_it_is_there_for_and_nothing_else(repair, tmp_path):
    write(tmp_path, {name: before for name, (before, _) in MADE_UP[repair].items()})
    repair(tmp_path)
    for name, (_, after) in MADE_UP[repair].items():
        assert (tmp_path / name).read_text() == after


@pytest.mark.parametrize("repair", repairs.REPAIRS, ids=lambda repair: repair.__name__)
def test_a_repair_says_why_and_is_loud_where_its_text_is_missing(repair, tmp_path):
    assert repair.__doc__
    with pytest.raises(repairs.RepairError):
        repair(tmp_path)  # no such file
    names = re.findall(
        r"(?:detectron2|projects)/[\w/-]+\.py", " ".join(map(str, repair.__code__.co_consts))
    )
    write(tmp_path, dict.fromkeys(names, "something_else = 1\n"))
    with pytest.raises(repairs.RepairError):
        repair(tmp_path)
    assert all((tmp_path / name).read_text() == "something_else = 1\n" for name in names)


def test_a_checkpoint_of_an_unrepaired_trainer_warns(tmp_path, caplog):
    text = "import logging\nclass Base:\n    def load_state_dict(self, state_dict): pass\n"
    text += "class Trainer(Base):\n    def run_step(self):\n        self._trainer.run_step()\n"
    write(tmp_path, {"detectron2/engine/defaults.py": text})
    repairs.default_trainer_state(tmp_path)
    scope = {"__name__": "made_up"}
    exec((tmp_path / "detectron2/engine/defaults.py").read_text(), scope)
    scope["Trainer"]().load_state_dict({"iteration": 3})
    assert "momentum starts from zero" in caplog.text


def test_the_stand_in_is_put_where_the_extension_would_be(tmp_path):
    names = ("deform_conv", "roi_align_rotated", "rotated_boxes")
    line = "from detectron2 import _C\n"
    write(tmp_path, {f"detectron2/layers/{name}.py": line for name in names})
    repairs.compiled_extension(tmp_path)
    stand_in = (ROOT / "install/detectron2_extension.py").read_text()
    assert (tmp_path / "detectron2/_C.py").read_text() == stand_in
    assert all((tmp_path / f"detectron2/layers/{name}.py").read_text() == line for name in names)


def test_the_stand_in_names_the_operator_and_the_way_out():
    """The 13 entries that Detectron2 v0.5's C++ registers, and the one under torch.ops."""
    code = f"""
import importlib.util, torch
path = {str(ROOT / "install/detectron2_extension.py")!r}
spec = importlib.util.spec_from_file_location("_C", path)
_C = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_C)
names = '''box_iou_rotated nms_rotated roi_align_rotated_forward roi_align_rotated_backward
    deform_conv_forward deform_conv_backward_input deform_conv_backward_filter
    modulated_deform_conv_forward modulated_deform_conv_backward COCOevalAccumulate
    COCOevalEvaluateImages InstanceAnnotation ImageEvaluation'''.split()
calls = [(name, lambda name=name: getattr(_C, name)(1, 2)) for name in names]
boxes = torch.rand(2, 5)
calls.append(("nms_rotated", lambda: torch.ops.detectron2.nms_rotated(boxes, boxes[:, 0], 0.5)))
for name, call in calls:
    try:
        call()
    except _C.MissingOperator as error:
        assert name in str(error) and "--source git" in str(error), error
    else:
        raise AssertionError(name)
assert not _C.has_cuda() and _C.get_cuda_version() and _C.get_compiler_version()
print(len(calls), "named")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "14 named\n", done.stderr
