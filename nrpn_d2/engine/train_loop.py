"""Training steps that stop before a loss that is not finite reaches the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.modeling.proposal_generator import RPN
from detectron2.utils import comm
from torch import Tensor, nn


class NonFiniteLoss(FloatingPointError):
    """Raised by all processes together, before the optimizer's step.

    The message is what this process has to do with it, empty if it is another's fault.
    """


def rpns_of(model: nn.Module) -> list[RPN]:
    return [module for module in model.modules() if isinstance(module, RPN)]


@contextmanager
def proposals_of_any_prediction(rpns: list[RPN]) -> Iterator[list[FloatingPointError]]:
    """Let RPNs go on where Detectron2 raises FloatingPointError for predictions of inf or nan.

    A process that raises in its forward pass leaves the others waiting for its gradients. Here the
    pass ends, with some anchors as the proposals, and the list has what Detectron2 raised.
    """
    errors: list[FloatingPointError] = []

    def predict_proposals(rpn, anchors, logits, deltas, image_sizes):
        predict = partial(type(rpn).predict_proposals, rpn, anchors)
        try:
            return predict(logits, deltas, image_sizes)
        except FloatingPointError as error:
            errors.append(error)
            zeros = [[torch.zeros_like(x) for x in maps] for maps in (logits, deltas)]
            return predict(*zeros, image_sizes)

    for rpn in rpns:
        rpn.predict_proposals = partial(predict_proposals, rpn)
    try:
        yield errors
    finally:
        for rpn in rpns:
            del rpn.predict_proposals


class FiniteLosses:
    """Mixin for ``SimpleTrainer`` and ``AMPTrainer``.

    A step whose losses are not finite, in any process, raises NonFiniteLoss in all of them, before
    the optimizer's step. Gradients that overflow from finite losses are the gradient scaler's task.
    """

    def __init__(self, model: nn.Module, *args: Any):
        super().__init__(model, *args)
        self._rpns = rpns_of(model)
        self._prediction_errors: list[FloatingPointError] = []
        self.batch: list[dict[str, Any]] = []  # the input of the last step

    def _remember(self, model: nn.Module, args: tuple) -> None:
        self.batch = args[0]

    def run_step(self) -> None:
        remembering = self.model.register_forward_pre_hook(self._remember)
        finite = proposals_of_any_prediction(self._rpns)
        with remembering, finite as self._prediction_errors:
            super().run_step()

    def _write_metrics(self, loss_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> None:
        """Detectron2 calls this between the backward pass and the optimizer's step."""
        losses = torch.stack([x.detach().float() for x in loss_dict.values()])
        at_fault = (~losses.sum().isfinite()).float()
        if self._prediction_errors:
            at_fault = torch.ones_like(at_fault)
        in_any = at_fault.clone()
        if comm.get_world_size() > 1:
            dist.all_reduce(in_any, op=dist.ReduceOp.MAX)
        # The only wait for a GPU: Detectron2 gets the losses as they are on the host
        on_host = torch.cat([losses, torch.stack([at_fault, in_any])]).cpu()
        losses, (at_fault, in_any) = on_host[:-2], on_host[-2:].tolist()
        if in_any:
            report = self._report(dict(zip(loss_dict, losses.tolist())))
            raise NonFiniteLoss(report if at_fault else "")
        super()._write_metrics(dict(zip(loss_dict, losses)), *args, **kwargs)

    def _report(self, losses: dict[str, float]) -> str:
        parts = [f"{name} {value:.4g}" for name, value in losses.items()]
        parts += map(str, self._prediction_errors)
        weights = getattr(self.model, "module", self.model).named_parameters()  # without DDP
        broken = [name for name, weight in weights if not weight.isfinite().all()]
        if broken:
            parts.append(f"already before it, weights were not finite: {', '.join(broken)}")
        images = [str(x.get("file_name", x.get("image_id", "?"))) for x in self.batch]
        return f"rank {comm.get_rank()}: {', '.join(parts)}; images: {', '.join(images)}"


class FiniteTrainer(FiniteLosses, SimpleTrainer):
    """Detectron2's training loop; see :class:`FiniteLosses`."""


class FiniteAMPTrainer(FiniteLosses, AMPTrainer):
    """Detectron2's training loop in mixed precision; see :class:`FiniteLosses`."""
