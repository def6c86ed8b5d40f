"""Repairs that Detectron2 v0.5 (July 2021) needs for today's Python, torch, NumPy and Pillow.

Each repair edits the unpacked sources under `root` and raises `RepairError` if it does not find
the text to be replaced, so that other sources are never half repaired in silence. What
Detectron2 main has repaired since is repaired in the same way.
"""

import re
import shutil
from pathlib import Path


class RepairError(RuntimeError):
    """The sources are not the ones the repair was written for."""


def replace(root: Path, file: str, old: str, new: str) -> None:
    """Replace every `old` in a file under `root`; there must be at least one."""
    path = root / file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if old not in text:
        raise RepairError(
            f"{file} lacks the text to be repaired, so these are not the sources of "
            f"Detectron2 v0.5. Expected:\n{old}"
        )
    path.write_text(text.replace(old, new), encoding="utf-8")


def numpy_aliases(root: Path) -> None:
    """NumPy 1.24 removed np.bool, np.float, np.int, np.object and np.str: the Python types."""
    alias = re.compile(r"\bnp\.(bool|float|int|object|str)\b")
    found = False
    for path in sorted(root.glob("**/*.py")):
        text, count = alias.subn(r"\1", path.read_text(encoding="utf-8"))
        if count:
            path.write_text(text, encoding="utf-8")
            found = True
    if not found:
        raise RepairError("no use of NumPy's removed aliases: not the sources of Detectron2 v0.5")


def pillow_linear(root: Path) -> None:
    """Pillow 10 removed Image.LINEAR, the old name of Image.BILINEAR."""
    file = "detectron2/data/transforms/transform.py"
    replace(root, file, "Image.LINEAR", "Image.BILINEAR")


def compiled_extension(root: Path) -> None:
    """The source package has no C++. What imports detectron2._C gets one that says so."""
    for name in ("deform_conv", "roi_align_rotated", "rotated_boxes"):
        file, line = f"detectron2/layers/{name}.py", "from detectron2 import _C\n"
        replace(root, file, line, line)  # only checks that it is still imported from there
    shutil.copy(Path(__file__).with_name("detectron2_extension.py"), root / "detectron2" / "_C.py")


def coco_evaluation(root: Path) -> None:
    """COCOEvaluator's default is the C++ evaluation. pycocotools' own takes its place: slower,
    the same numbers."""
    file = "detectron2/evaluation/coco_evaluation.py"
    replace(root, file, "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n", "")
    replace(root, file, "(COCOeval_opt if use_fast_impl else COCOeval)(", "COCOeval(")
    replace(root, file, '"unofficial" if self._use_fast_impl else "official"', '"official"')


def caffe2_export(root: Path) -> None:
    """torch 2 has no caffe2; export offers the rest without it."""
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


def sample_from_set(root: Path) -> None:
    """Python 3.11 no longer samples from a set, so that a mapper that returns None (skip this
    image) would end the run."""
    old = "self._rng.sample(self._fallback_candidates, k=1)"
    new = "self._rng.sample(list(self._fallback_candidates), k=1)"
    replace(root, "detectron2/data/common.py", old, new)


def meshgrid_indexing(root: Path) -> None:
    """torch warns of a meshgrid without `indexing`, and will refuse it."""
    file = "detectron2/modeling/anchor_generator.py"
    new = 'torch.meshgrid(shifts_y, shifts_x, indexing="ij")'
    replace(root, file, "torch.meshgrid(shifts_y, shifts_x)", new)
    line = "        torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n"
    file = "projects/Panoptic-DeepLab/panoptic_deeplab/post_processing.py"
    replace(root, file, line, line + '        indexing="ij",\n')


def byte_storage(root: Path) -> None:
    """torch deprecated typed storages, through which several processes exchange results."""
    replace(
        root,
        "detectron2/utils/comm.py",
        "    storage = torch.ByteStorage.from_buffer(buffer)\n"
        "    tensor = torch.ByteTensor(storage).to(device=device)\n",
        "    tensor = torch.frombuffer(bytearray(buffer), dtype=torch.uint8).to(device=device)\n",
    )


def boxes_from_arrays(root: Path) -> None:
    """torch warns, in every worker, that a tensor from a list of arrays is extremely slow."""
    file = "detectron2/data/detection_utils.py"
    old = "    target.gt_boxes = Boxes(boxes)\n"
    new = "    target.gt_boxes = Boxes(np.stack(boxes) if boxes else boxes)\n"
    replace(root, file, old, new)


def profiler_hooks(root: Path) -> None:
    """torch's profiler saves a trace once, and TorchProfiler asks it twice; torch's autograd
    profiler no longer has `use_cuda`."""
    file = "detectron2/engine/hooks.py"
    line = "        self._profiler.__exit__(None, None, None)\n"
    done = '        if getattr(self, "_save_tensorboard", False):\n            return\n'
    replace(root, file, line, line + done)
    replace(
        root,
        file,
        "profile(use_cuda=self._use_cuda)",
        'profile(use_device="cuda" if self._use_cuda else None)',
    )


def lr_scheduler_class(root: Path) -> None:
    """torch's schedulers no longer derive from _LRScheduler, so that the LRScheduler hook would
    neither save nor restore them: a resumed run silently starts its schedule anew."""
    old, new = "torch.optim.lr_scheduler._LRScheduler", "torch.optim.lr_scheduler.LRScheduler"
    replace(
        root,
        "detectron2/engine/hooks.py",
        f"isinstance(self.scheduler, {old})",
        f"isinstance(self.scheduler, {new})",
    )
    for file in ("detectron2/solver/lr_scheduler.py", "projects/DeepLab/deeplab/lr_scheduler.py"):
        replace(root, file, f"({old}):", f"({new}):")


def default_trainer_state(root: Path) -> None:
    """DefaultTrainer's checkpoints lack the optimizer and the gradient scaler: a resumed run
    silently starts without momentum. Detectron2 main saves both, under this key."""
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
        '                "The checkpoint has no optimizer state: momentum starts from zero."\n'
        "            )\n",
    )


def cross_entropy_reduction(root: Path) -> None:
    """cross_entropy silently ignores its `reduction` and always takes the mean."""
    replace(
        root,
        "detectron2/layers/wrappers.py",
        "return F.cross_entropy(input, target, **kwargs)",
        "return F.cross_entropy(input, target, reduction=reduction, **kwargs)",
    )


def launch_on_cpu(root: Path) -> None:
    """launch() refuses several processes without CUDA; Detectron2 main falls back to gloo."""
    file = "detectron2/engine/launch.py"
    old = 'assert torch.cuda.is_available(), "cuda is not available. Please check your '
    replace(root, file, f'{old}installation."', "has_gpu = torch.cuda.is_available()")
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
    sample_from_set,
    meshgrid_indexing,
    byte_storage,
    boxes_from_arrays,
    profiler_hooks,
    lr_scheduler_class,
    default_trainer_state,
    cross_entropy_reduction,
    launch_on_cpu,
)
