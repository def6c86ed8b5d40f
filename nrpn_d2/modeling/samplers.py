"""Which anchors of each image the RPN learns from: labels (+ logits, IoUs) -> sampled labels.

Shapes and labels are those of hard_negative_rpn. Samplers take tensors and give tensors; they own
no model and keep no state. Quotas are filled with ``topk`` of a fixed size, so that sampling never
waits for a GPU.
"""

from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.utils.registry import Registry
from torch import Tensor

NEGATIVE_SAMPLER_REGISTRY = Registry("NEGATIVE_SAMPLER")
NEGATIVE_SAMPLER_REGISTRY.__doc__ = """
Registry of the samplers of the RPN's anchors, chosen by ``MODEL.RPN.NEGATIVE_SAMPLER.NAME``.

A registered object is called with ``obj(cfg)`` and returns a callable
``sampler(labels, logits, ious, hardness) -> Sample``; all arguments are (N, R). Its attributes:

- ``keeps_all_anchors``: whether nothing is sampled away, which is what focal losses need.
- ``needs_hardness`` (optional, False): whether the nRPN is to be built. Hardness is its logit of
  each anchor that it proposes, and -inf elsewhere: everywhere in the warm-up and without it.
"""


class Sample(NamedTuple):
    """What a sampler gives."""

    labels: Tensor  # (N, R), 1 and 0 where an anchor was sampled, -1 elsewhere
    hard: Tensor  # (N, R) bool, the sampled negatives that were chosen for being hard


def pick(priority: Tensor, eligible: Tensor, quota: Tensor | None, limit: int) -> Tensor:
    """Pick, in each image, the eligible anchors of largest priority.

    Args:
        priority: (N, R) float; anchors at -inf are never picked. Ties are broken arbitrarily.
        eligible: (N, R) bool.
        quota: (N,), how many to pick, ``limit`` by default; all eligible anchors are picked where
            there are fewer.
        limit: an upper bound of quota, known on the host.

    Returns:
        (N, R) bool.
    """
    priority = priority.masked_fill(~eligible, -float("inf"))
    values, indices = priority.topk(min(limit, priority.shape[1]), dim=1)
    picked = values > -float("inf")
    if quota is not None:
        picked &= torch.arange(values.shape[1], device=values.device) < quota[:, None]
    return torch.zeros_like(eligible).scatter(1, indices, picked)


@NEGATIVE_SAMPLER_REGISTRY.register()
class Random:
    """Random positives and negatives, as in Faster R-CNN (Sec. 3.1.3).

    At most ``positive_fraction`` of ``batch_size_per_image`` anchors are positives; negatives fill
    the rest. Subclasses choose hard ones first.
    """

    keeps_all_anchors = False

    @configurable
    def __init__(
        self, *, batch_size_per_image: int, positive_fraction: float, hard_fraction: float = 0.0
    ):
        """
        Args:
            batch_size_per_image: anchors to sample in each image.
            positive_fraction: largest fraction of them that are positives.
            hard_fraction: largest fraction of an image's negatives that are chosen for being hard.
        """
        self.batch_size_per_image = batch_size_per_image
        self.max_positives = int(batch_size_per_image * positive_fraction)
        self.hard_fraction = hard_fraction

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "batch_size_per_image": cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": cfg.MODEL.RPN.POSITIVE_FRACTION,
            "hard_fraction": cfg.MODEL.RPN.NEGATIVE_SAMPLER.HARD_FRACTION,
        }

    def __call__(self, labels: Tensor, logits: Tensor, ious: Tensor, hardness: Tensor) -> Sample:
        size = self.batch_size_per_image
        positive, background = labels == 1, labels == 0
        quota = positive.sum(1).clamp(max=self.max_positives)
        positive = pick(self._random(labels), positive, quota, self.max_positives)

        quota = size - quota
        hard = self.hard_negatives(background, quota, logits, ious, hardness)
        rest = pick(self._random(labels), background & ~hard, quota - hard.sum(1), size)

        sampled = torch.full_like(labels, -1)
        sampled = sampled.masked_fill(positive, 1).masked_fill(hard | rest, 0)
        return Sample(sampled, hard)

    @staticmethod
    def _random(labels: Tensor) -> Tensor:
        return torch.rand(labels.shape, device=labels.device)

    def hard_negatives(
        self, background: Tensor, quota: Tensor, logits: Tensor, ious: Tensor, hardness: Tensor
    ) -> Tensor:
        """Choose up to ``quota`` (N,) of the ``background`` (N, R) anchors -> (N, R) bool."""
        return torch.zeros_like(background)

    def _hardest(self, priority: Tensor, background: Tensor, quota: Tensor) -> Tensor:
        hard_quota = (quota * self.hard_fraction).long()
        return pick(priority, background, hard_quota, self.batch_size_per_image)


@NEGATIVE_SAMPLER_REGISTRY.register()
class OHEM(Random):
    """The negatives of largest loss, that is of largest logit (Shrivastava et al., 2016)."""

    def hard_negatives(
        self, background: Tensor, quota: Tensor, logits: Tensor, ious: Tensor, hardness: Tensor
    ) -> Tensor:
        return self._hardest(logits.float(), background, quota)


@NEGATIVE_SAMPLER_REGISTRY.register()
class NRPN(Random):
    """The negatives that the nRPN proposes, the surest first (paper, Sec. 2.2)."""

    needs_hardness = True

    def hard_negatives(
        self, background: Tensor, quota: Tensor, logits: Tensor, ious: Tensor, hardness: Tensor
    ) -> Tensor:
        return self._hardest(hardness, background, quota)


@NEGATIVE_SAMPLER_REGISTRY.register()
class IoUBalanced(Random):
    """Equally many random negatives from each of ``bins`` IoU intervals (Libra R-CNN, Sec. 3.1).

    The intervals divide [0, largest IoU of an image's negatives] evenly. What an interval lacks is
    filled at random from all negatives.
    """

    @configurable
    def __init__(self, *, bins: int = 3, **kwargs: Any):
        super().__init__(**kwargs)
        self.bins = bins

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        ret = super().from_config(cfg)
        ret["bins"] = cfg.MODEL.RPN.NEGATIVE_SAMPLER.IOU_BINS
        return ret

    def hard_negatives(
        self, background: Tensor, quota: Tensor, logits: Tensor, ious: Tensor, hardness: Tensor
    ) -> Tensor:
        ious = ious.masked_fill(~background, 0)
        width = ious.max(dim=1, keepdim=True).values.clamp(min=1e-6) / self.bins
        interval = (ious / width).long().clamp(max=self.bins - 1)
        chosen, quota = torch.zeros_like(background), quota // self.bins
        for i in range(self.bins):
            eligible = background & (interval == i)
            chosen |= pick(self._random(ious), eligible, quota, self.batch_size_per_image)
        return chosen


@NEGATIVE_SAMPLER_REGISTRY.register()
class All:
    """No sampling: every anchor that is not ignored. Focal losses weigh them instead."""

    keeps_all_anchors = True

    def __init__(self, cfg: CfgNode | None = None):
        pass

    def __call__(self, labels: Tensor, logits: Tensor, ious: Tensor, hardness: Tensor) -> Sample:
        return Sample(labels, torch.zeros_like(labels, dtype=torch.bool))
