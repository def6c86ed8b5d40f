"""Models for runtimes without Detectron2: TorchScript and ONNX, compared with their originals."""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import cascade_rcnn
from detectron2.structures import Instances
from scipy.special import expit
from torch import Tensor, nn

from ..utils.saving import atomic_open

Exported = Callable[[Tensor], dict[str, np.ndarray]]  # image (3, H, W) -> outputs by name
FILE_NAMES = {"torchscript": "model.ts", "onnx": "model.onnx"}

# Largest difference that rounding explains, by how an output's name ends
_LIMITS = {
    "boxes": (0.01, "pixels"),
    "classes": (0.0, ""),
    "scores": (1e-4, ""),
    "objectness_logits": (1e-4, "as probabilities"),
    "masks": (1e-4, ""),
    "keypoints": (0.01, "pixels or score"),
    "keypoint_heatmaps": (1e-3, "as logits"),
    "image_size": (0.0, ""),
}


class InferenceGraph:
    """A model as a function of one image (3, H, W) that gives tensors, in Detectron2's adapter.

    The image has been resized, is in the order of INPUT.FORMAT and of 0 to 255; boxes are in its
    pixels. A detector gives "pred_boxes" (K, 4), "pred_classes" (K,), "scores" (K,) and what its
    other heads add ("pred_masks" (K, 1, M, M), ...), a ``ProposalNetwork`` "objectness_logits" (K,)
    and "proposal_boxes" (K, 4); all give "image_size".

    Attributes:
        names: of the outputs, in order, as the model returns them.
    """

    def __init__(self, model: nn.Module, image: Tensor):
        """
        Args:
            model: in evaluation mode, on the CPU.
            image: an example; the sides of others may be of any length.
        """
        model = copy.deepcopy(model)
        if hasattr(model.proposal_generator, "negative_rpn"):
            model.proposal_generator.negative_rpn = None  # its weights would be traced, unused
        self.adapter = TracingAdapter(model, [{"image": image}], _infer).eval()
        self.image = image
        self.adapter(image)  # it notes the structure of the outputs
        (instances,) = self.adapter.outputs_schema.schemas
        self.names = [*instances.keys, "image_size"]

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.adapter(image), strict=True))

    def to_torchscript(self, path: str) -> None:
        with torch.no_grad(), _tracing():
            traced = torch.jit.trace(self.adapter, (self.image,), check_trace=False)
        with atomic_open(path, "wb") as f:
            torch.jit.save(traced, f)

    def to_onnx(self, path: str) -> None:
        """Write an ONNX file; raise NotImplementedError for keypoints, else what torch raises."""
        if "pred_keypoints" in self.names:
            raise NotImplementedError("Detectron2 finds keypoints in a loop, which ONNX has not")
        with _tracing():
            torch.onnx.export(
                self.adapter,
                (self.image,),
                path,
                dynamo=False,  # the newer exporter needs one more package, onnxscript
                opset_version=17,
                input_names=["image"],
                output_names=self.names,
                dynamic_axes={"image": {1: "height", 2: "width"}},
            )


def _infer(model: nn.Module, inputs: list[dict[str, Tensor]]) -> list[Instances]:
    if isinstance(model, GeneralizedRCNN):
        return model.inference(inputs, do_postprocess=False)
    return [outputs["proposals"] for outputs in model(inputs)]


@contextmanager
def _tracing() -> Iterator[None]:
    """Trace without the tracer's pages of warnings: :func:`check_parity` is what tells.

    A step of Cascade R-CNN that only training needs is left out. Detectron2 0.5 takes it at
    inference, too, and TorchScript cannot hold it: it is Python.
    """
    cascade_rcnn._ScaleGradient.apply = staticmethod(lambda features, scale: features)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        del cascade_rcnn._ScaleGradient.apply  # torch's own is inherited


def noise_images(side: int) -> list[Tensor]:
    """Return three images (3, H, W) to compare on, of other sizes and proportions."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(side, side * 4 // 3), (side * 3 // 2, side), (side + 7, side + 7)]
    return [torch.randint(0, 256, (3, *size), generator=generator).float() for size in sizes]


def load_exported(path: str, names: Sequence[str]) -> Exported:
    """Return a file of :class:`InferenceGraph` as a function on the CPU.

    Args:
        names: of the outputs; a TorchScript file has only their order.
    """
    if path.endswith(".ts"):
        module = torch.jit.load(path, map_location="cpu")
        return torch.no_grad()(
            lambda image: {k: v.numpy() for k, v in zip(names, module(image), strict=True)}
        )
    import onnxruntime  # only here: nothing else of this package needs it

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(outputs, session.run(None, {"image": image.numpy()})))


def check_parity(graph: InferenceGraph, exported: Exported, images: Sequence[Tensor]) -> list[str]:
    """Compare every output of an exported model with the model it was made from.

    Returns:
        For each image a line of its size, the number of boxes, and the largest differences.

    Raises:
        ValueError: if names or shapes differ, or values by more than _LIMITS.
    """
    lines = []
    for image in images:
        size = f"{image.shape[1]} x {image.shape[2]}"
        expected = {name: value.numpy() for name, value in graph(image).items()}
        outputs = exported(image)
        if outputs.keys() != expected.keys():
            raise ValueError(f"{size}: outputs {list(outputs)} instead of {list(expected)}")
        differences = [_compare(name, expected[name], outputs[name], size) for name in expected]
        count = len(next(iter(expected.values())))
        lines.append(f"{size}: {count} boxes; largest differences: {', '.join(differences)}")
    return lines


def _compare(name: str, expected: np.ndarray, output: np.ndarray, size: str) -> str:
    """Return the largest difference of an output in words."""
    if expected.shape != output.shape:
        raise ValueError(f"{size}: {name} has shape {output.shape} instead of {expected.shape}")
    expected, output = expected.astype(np.float64), output.astype(np.float64)
    if name == "objectness_logits":
        expected, output = expit(expected), expit(output)
    limit, unit = next((v for k, v in _LIMITS.items() if name.endswith(k)), (1e-3, ""))
    largest = np.abs(expected - output).max(initial=0)
    difference = f"{name} {largest:.2g} {unit}".strip()
    if not largest <= limit:  # also NaN
        raise ValueError(f"{size}: difference in {difference}; the limit is {limit:g}")
    return difference
