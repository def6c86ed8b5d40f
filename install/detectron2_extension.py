"""A stand-in for Detectron2's compiled extension where that was not built.

`install/install_detectron2.py` copies this file into Detectron2 v0.5 as ``detectron2/_C.py``: its
modules import the extension when they are imported, but only rotated boxes, deformable
convolution and the fast COCO evaluation call it. Here, these calls raise an error that says how to
get the extension.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import torch

_WAY_OUT = (
    "needs Detectron2's compiled extension, and this Detectron2 was installed without one. "
    "For a build with it (git and a C++ compiler needed): pip uninstall detectron2, "
    "then python install/install_detectron2.py --source git"
)


class MissingOperator(RuntimeError):
    """An operator of the compiled extension was called, and there is none."""


def _missing(name: str, hint: str = "") -> Callable[..., NoReturn]:
    """Return a function that raises `MissingOperator` for the operator ``name``."""

    def operator(*args: Any, **kwargs: Any) -> NoReturn:
        raise MissingOperator(f"detectron2._C.{name} {_WAY_OUT}{hint}")

    operator.__name__ = name
    return operator


def get_compiler_version() -> str:
    return "not available (installed without the compiled extension)"


def get_cuda_version() -> str:
    return "not available"


def has_cuda() -> bool:
    return False


box_iou_rotated = _missing("box_iou_rotated")
nms_rotated = _missing("nms_rotated")
roi_align_rotated_forward = _missing("roi_align_rotated_forward")
roi_align_rotated_backward = _missing("roi_align_rotated_backward")
deform_conv_forward = _missing("deform_conv_forward")
deform_conv_backward_input = _missing("deform_conv_backward_input")
deform_conv_backward_filter = _missing("deform_conv_backward_filter")
modulated_deform_conv_forward = _missing("modulated_deform_conv_forward")
modulated_deform_conv_backward = _missing("modulated_deform_conv_backward")

_COCO = ". The evaluation itself does not: COCOEvaluator(..., use_fast_impl=False)"
InstanceAnnotation = _missing("InstanceAnnotation", _COCO)
ImageEvaluation = _missing("ImageEvaluation", _COCO)
COCOevalEvaluateImages = _missing("COCOevalEvaluateImages", _COCO)
COCOevalAccumulate = _missing("COCOevalAccumulate", _COCO)

# layers/nms.py finds this one through torch.ops.detectron2.
_library = torch.library.Library("detectron2", "DEF")
_library.define("nms_rotated(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
_library.impl("nms_rotated", nms_rotated, "CompositeExplicitAutograd")
