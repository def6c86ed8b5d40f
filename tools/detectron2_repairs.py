"""What Detectron2 v0.5 (July 2021) needs on today's torch, NumPy and Pillow.

Each repair edits the unpacked sources under `root` and raises `RepairError` where it does not
find the text it is there for, so that another version is never half repaired in silence.
"""

import re
import shutil
from pathlib import Path


class RepairError(RuntimeError):
    """The sources are not the ones the repair was written for."""


def replace(root: Path, file: str, old: str, new: str) -> None:
    """Replaces every `old` in a file under `root`; there must be one."""
    path = root / file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if old not in text:
        raise RepairError(
            f"{file} does not hold the text that is to be repaired; these are not the sources of "
            f"Detectron2 v0.5. Expected:\n{old}"
        )
    path.write_text(text.replace(old, new), encoding="utf-8")


def numpy_aliases(root: Path) -> None:
    """NumPy 1.24 removed np.bool, np.float, np.int, np.object and np.str: the Python types."""
    files = {
        path: path.read_text(encoding="utf-8") for path in sorted(root.glob("detectron2/**/*.py"))
    }
    alias = re.compile(r"\bnp\.(bool|float|int|object|str)\b")
    found = [path for path, text in files.items() if alias.search(text)]
    if not found:
        raise RepairError(f"no use of NumPy's removed aliases in {root / 'detectron2'}")
    for path in found:
        path.write_text(alias.sub(r"\1", files[path]), encoding="utf-8")


def pillow_linear(root: Path) -> None:
    """Pillow 10 removed Image.LINEAR, the old name of Image.BILINEAR."""
    replace(
        root, "detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR"
    )


def compiled_extension(root: Path) -> None:
    """The source package has no C++; what imports detectron2._C still has to import."""
    replace(root, "detectron2/layers/deform_conv.py", "from detectron2 import _C", "from detectron2 import _C")
    shutil.copy(Path(__file__).with_name("detectron2_extension.py"), root / "detectron2" / "_C.py")


def coco_evaluation(root: Path) -> None:
    """COCOEvaluator's default is the C++ evaluation. As in Detectron2 main, pycocotools' own
    takes its place where there is no C++; the numbers are the same."""
    replace(
        root,
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "",
    )
    replace(
        root,
        "detectron2/evaluation/coco_evaluation.py",
        "(COCOeval_opt if use_fast_impl else COCOeval)(",
        "COCOeval(",
    )
    replace(
        root,
        "detectron2/evaluation/coco_evaluation.py",
        '"unofficial" if self._use_fast_impl else "official"',
        '"official"',
    )


def caffe2_export(root: Path) -> None:
    """torch 2 has no caffe2. As in Detectron2 main, export offers the rest without it."""
    replace(
        root,
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n"
        "    from caffe2.proto import caffe2_pb2 as _caffe2_pb2\n"
        "except ImportError:\n"
        "    pass\n"
        "else:\n"
        "    from .api import *\n",
    )


def model_zoo_files(root: Path) -> None:
    """setuptools 82 removed pkg_resources."""
    file = "detectron2/model_zoo/model_zoo.py"
    replace(root, file, "import pkg_resources\n", "")
    replace(
        root,
        file,
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )",
        'os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", config_path)',
    )


def lr_scheduler_class(root: Path) -> None:
    """torch's schedulers no longer derive from _LRScheduler, so the LRScheduler hook would
    neither save nor restore them: a resumed run would silently start its schedule anew."""
    for file in ("engine/hooks.py", "solver/build.py", "solver/lr_scheduler.py"):
        replace(
            root,
            f"detectron2/{file}",
            "torch.optim.lr_scheduler._LRScheduler",
            "torch.optim.lr_scheduler.LRScheduler",
        )


def default_trainer_state(root: Path) -> None:
    """DefaultTrainer's checkpoints lack the optimizer and the gradient scaler, so that a resumed
    run silently starts without momentum. Detectron2 main saves both, under the same key."""
    replace(
        root,
        "detectron2/engine/defaults.py",
        "        self._trainer.run_step()\n",
        "        self._trainer.run_step()\n"
        "\n"
        "    def state_dict(self):\n"
        "        ret = super().state_dict()\n"
        '        ret["_trainer"] = self._trainer.state_dict()\n'
        "        return ret\n"
        "\n"
        "    def load_state_dict(self, state_dict):\n"
        "        super().load_state_dict(state_dict)\n"
        '        if "_trainer" in state_dict:\n'
        '            self._trainer.load_state_dict(state_dict["_trainer"])\n'
        "        else:\n"
        "            logging.getLogger(__name__).warning(\n"
        '                "This checkpoint has no optimizer state: momentum starts from zero."\n'
        "            )\n",
    )


def launch_on_cpu(root: Path) -> None:
    """launch() refuses several processes without CUDA. Detectron2 main falls back to gloo."""
    file = "detectron2/engine/launch.py"
    replace(
        root,
        file,
        "    assert torch.cuda.is_available(), "
        '"cuda is not available. Please check your installation."\n',
        "    has_gpu = torch.cuda.is_available()\n",
    )
    replace(root, file, 'backend="NCCL"', 'backend="NCCL" if has_gpu else "GLOO"')
    replace(
        root,
        file,
        "    assert num_gpus_per_machine <= torch.cuda.device_count()\n"
        "    torch.cuda.set_device(local_rank)\n",
        "    if has_gpu:\n"
        "        assert num_gpus_per_machine <= torch.cuda.device_count()\n"
        "        torch.cuda.set_device(local_rank)\n",
    )


REPAIRS = (
    numpy_aliases,
    pillow_linear,
    compiled_extension,
    coco_evaluation,
    caffe2_export,
    model_zoo_files,
    lr_scheduler_class,
    default_trainer_state,
    launch_on_cpu,
)
