"""Models out: to stock Detectron2 without this package, and to runtimes without Detectron2."""
import copy
import os
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.export import TracingAdapter
from detectron2.modeling import GeneralizedRCNN
from torch import Tensor, nn

from .checkpoint import NRPN_PREFIX
from .saving import atomic_open

FORMATS = {"torchscript": "model.ts", "onnx": "model.onnx"}


def needs_this_package(cfg: CfgNode) -> bool:
    """Whether inference needs a VGG or a network of torchvision, which stock Detectron2 lacks."""
    ours = ("build_vgg_backbone", "build_torchvision_backbone", "build_torchvision_fpn_backbone")
    return cfg.MODEL.BACKBONE.NAME in ours or cfg.MODEL.ROI_BOX_HEAD.NAME == "VGGBoxHead"


def stock_config(cfg: CfgNode) -> CfgNode:
    """A model's config for Detectron2 alone: its proposal generator is the plain RPN.

    Returns:
        The values that differ from Detectron2's defaults, which any version since 0.5 can merge.
        The keys of this package are gone, but for MODEL.VGG and MODEL.TORCHVISION of a model that
        needs them.
    """
    known = get_cfg()
    if needs_this_package(cfg):
        for section in ("VGG", "TORCHVISION"):
            known.MODEL[section] = CfgNode({key: None for key in cfg.MODEL[section]})
    stock = _difference(cfg, known)
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "HardNegativeRPN":
        stock.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    stock.VERSION = cfg.VERSION
    return stock


def _difference(cfg: CfgNode, known: CfgNode) -> CfgNode:
    """The values of ``cfg`` that differ from ``known``'s, of the keys that both have."""
    differing = CfgNode()
    for key in set(cfg) & set(known):
        if isinstance(cfg[key], CfgNode):
            inner = _difference(cfg[key], known[key])
            if inner:
                differing[key] = inner
        elif cfg[key] != known[key]:
            differing[key] = cfg[key]
    return differing


def stock_weights(model: nn.Module) -> Dict[str, Tensor]:
    """The model's state dict without the nRPN, on the CPU."""
    state = model.state_dict()
    return {k: v.cpu() for k, v in state.items() if not k.startswith(NRPN_PREFIX)}


def export_stock(cfg: CfgNode, model: nn.Module, folder: str) -> List[str]:
    """Write model.pth and config.yaml for Detectron2's ``DefaultPredictor`` into a folder.

    Returns:
        The two paths.
    """
    os.makedirs(folder, exist_ok=True)
    weights, config = (os.path.join(folder, name) for name in ("model.pth", "config.yaml"))
    with atomic_open(weights, "wb") as f:
        torch.save({"model": stock_weights(model)}, f)
    stock = stock_config(cfg)
    stock.MODEL.WEIGHTS = weights
    with atomic_open(config, "w") as f:
        f.write(stock.dump())
    return [weights, config]


class InferenceGraph:
    """A model as a function of one image (3, H, W) that gives tensors, in Detectron2's adapter.

    The image has been resized, is in the order of INPUT.FORMAT and of 0 to 255; boxes are in its
    pixels. A detector gives "pred_boxes" (K, 4), "pred_classes" (K,) and "scores" (K,), a
    ``ProposalNetwork`` "objectness_logits" (K,) and "proposal_boxes" (K, 4); both "image_size".
    """

    def __init__(self, model: nn.Module, image: Tensor):
        """
        Args:
            model: in evaluation mode, on the CPU.
            image: an example; the sides of others may be of any length.
        """
        is_detector = isinstance(model, GeneralizedRCNN)
        infer = _instances if is_detector else None
        model = _without_nrpn(model)
        self.adapter = TracingAdapter(model, [{"image": image}], infer).eval()
        self.image = image
        self.names = (
            ["pred_boxes", "pred_classes", "scores", "image_size"]
            if is_detector
            else ["objectness_logits", "proposal_boxes", "image_size"]
        )

    def __call__(self, image: Tensor) -> Tuple[Tensor, ...]:
        return self.adapter(image)

    def to_torchscript(self, path: str) -> None:
        with torch.no_grad():
            traced = torch.jit.trace(self.adapter, (self.image,), check_trace=False)
        with atomic_open(path, "wb") as f:
            torch.jit.save(traced, f)

    def to_onnx(self, path: str) -> None:
        """
        Raises:
            Exception: whatever torch's exporter raises if it cannot.
        """
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


def _without_nrpn(model: nn.Module) -> nn.Module:
    """A copy; tracing would keep the weights of what does not run."""
    generator = model.proposal_generator
    nrpn = getattr(generator, "negative_rpn", None)
    if nrpn is None:
        return model
    generator.negative_rpn = None
    try:
        return copy.deepcopy(model)
    finally:
        generator.negative_rpn = nrpn


def _instances(model: nn.Module, inputs):
    return model.inference(inputs, do_postprocess=False)


def load_exported(path: str) -> Callable[[Tensor], Sequence[np.ndarray]]:
    """A file of :class:`InferenceGraph`, on the CPU: image (3, H, W) -> arrays."""
    if path.endswith(".ts"):
        module = torch.jit.load(path, map_location="cpu")
        return torch.no_grad()(lambda image: [x.numpy() for x in module(image)])
    import onnxruntime  # only here: nothing else of this package needs it

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image.numpy()})


def check_parity(graph: InferenceGraph, exported: Callable, images: Sequence[Tensor]) -> List[str]:
    """Compare an exported model with the model it was made from.

    Returns:
        For each image a line of its size, the number of boxes, and the largest differences.

    Raises:
        ValueError: if other boxes are kept, classes differ, coordinates by 0.01 pixels or more, or
            scores (probabilities) by 1e-4 or more.
    """
    lines = []
    for image in images:
        with torch.no_grad():
            expected = {k: v.numpy() for k, v in zip(graph.names, graph(image))}
        found = dict(zip(graph.names, exported(image)))
        size = f"{image.shape[1]} x {image.shape[2]}"
        largest = {}
        for name, limit in (("boxes", 0.01), ("scores", 1e-4), ("classes", 0.5)):
            if name == "classes" and "pred_classes" not in expected:
                continue
            a, b = _values(expected, name), _values(found, name)
            if a.shape != b.shape:
                raise ValueError(f"{size}: {len(b)} {name} instead of {len(a)}")
            largest[name] = float(np.abs(a - b).max(initial=0))
            if not largest[name] < limit:
                raise ValueError(f"{size}: {name} differ by {largest[name]:.3g}")
        lines.append(
            f"{size}: {len(_values(expected, 'boxes'))} boxes, coordinates differ by at most "
            f"{largest['boxes']:.2g} pixels, scores by {largest['scores']:.2g}"
        )
    return lines


def _values(outputs: Dict[str, np.ndarray], kind: str) -> np.ndarray:
    """Boxes, scores or classes, of proposals or detections, in float64."""
    if kind == "scores" and "scores" not in outputs:
        return 1 / (1 + np.exp(-outputs["objectness_logits"].astype(np.float64)))
    name = next(n for n in outputs if n.endswith(kind))
    return outputs[name].astype(np.float64)
