"""The hub: a Detectron2 RPN that learns from its own false positives.

Shape shorthand:

    N: number of images in the batch
    L: number of feature maps (levels)
    A: number of anchors per cell
    Hi, Wi: height and width of feature map i
    R: number of anchors of an image, the sum of Hi * Wi * A over levels

Labels are 1 (object), 0 (background), -1 (ignored). The IoU of an anchor is that with the
ground-truth box it overlaps most, 0 in an image without objects.
"""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..config_checks import check_false_positive_iou, check_losses, check_rpn, registered
from .events import log_exchange
from .ignored import set_all_ignored_aside
from .labels import label_anchors, mean_positives, withhold_ignored
from .losses import OBJECTNESS_LOSS_REGISTRY
from .mining import false_positives, hard_negatives
from .negative_rpn import NegativeRPN, miner, nrpn_arguments, nrpn_loss
from .proposal_ious import ProposalIoUs
from .samplers import NEGATIVE_SAMPLER_REGISTRY, NRPN


@PROPOSAL_GENERATOR_REGISTRY.register()
class HardNegativeRPN(RPN):
    """An RPN whose objectness loss and negatives are chosen, and the nRPN that trains beside it.

    At inference it is Detectron2's RPN: the same parameters, the same operations. Without an nRPN,
    with random negatives and binary cross-entropy it is that in training, too.
    """

    @configurable
    def __init__(
        self,
        *,
        objectness_loss: Callable,
        negative_sampler: Callable,
        negative_rpn: NegativeRPN | None = None,
        nrpn_sampler: NRPN | None = None,
        find_false_positives: Callable = false_positives,
        propose_hard_negatives: Callable = hard_negatives,
        warmup_iters: int = 0,
        nrpn_loss_weight: float = 1.0,
        fp_by: str = "anchor",
        fp_iou: float = 0.3,
        num_candidates: int = 1000,
        num_false_alarms: int = 0,
        ignore_ioa: float = 0.5,
        **kwargs,
    ):
        """
        Args:
            objectness_loss: see ``OBJECTNESS_LOSS_REGISTRY``.
            negative_sampler: see ``NEGATIVE_SAMPLER_REGISTRY``.
            negative_rpn: the second network, or None to train an RPN alone.
            nrpn_sampler: samples the nRPN's own mini-batch; its "hard negatives" are objects.
            find_false_positives: ``(logits, labels, ious) -> (N, R) bool``.
            propose_hard_negatives: ``(nrpn_logits, labels, anchors) -> (N, R)``.
            warmup_iters, nrpn_loss_weight, fp_by, fp_iou, num_false_alarms, ignore_ioa: the keys
                of ``MODEL.NRPN``, see config.py.
            num_candidates: with ``fp_by`` "proposal", anchors of an image that may be mined or
                proposed, the best-scored ones.
            kwargs: those of Detectron2's ``RPN``.

        Raises:
            ValueError: for a loss made for all anchors on a sampled mini-batch, or the reverse; or
                if ``loss_weight`` is a dict without a weight for each of the RPN's two losses.
        """
        super().__init__(**kwargs)
        check_losses(self.loss_weight, objectness_loss, negative_sampler)
        self.objectness_loss = objectness_loss
        self.iou_of = getattr(objectness_loss, "iou_of", "anchor")
        self.negative_sampler = negative_sampler
        self.negative_rpn = negative_rpn
        self.nrpn_sampler = nrpn_sampler
        self.find_false_positives = find_false_positives
        self.propose_hard_negatives = propose_hard_negatives
        self.warmup_iters = warmup_iters
        self.nrpn_loss_weight = nrpn_loss_weight
        self.fp_by = fp_by
        self.fp_iou = fp_iou
        self.num_candidates = num_candidates
        self.num_false_alarms = num_false_alarms
        self.ignore_ioa = ignore_ioa

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        check_rpn(cfg, input_shape)
        loss = registered(cfg, "MODEL.RPN.OBJECTNESS_LOSS.NAME", OBJECTNESS_LOSS_REGISTRY)(cfg)
        sampler = registered(cfg, "MODEL.RPN.NEGATIVE_SAMPLER.NAME", NEGATIVE_SAMPLER_REGISTRY)(cfg)
        ret = super().from_config(cfg, input_shape)
        ret |= {"objectness_loss": loss, "negative_sampler": sampler}
        ret["ignore_ioa"] = cfg.MODEL.NRPN.IGNORE_IOA
        ret["find_false_positives"] = miner(cfg)
        if getattr(sampler, "needs_hardness", False):
            check_false_positive_iou(cfg)
            ret.update(nrpn_arguments(cfg, input_shape))
        return ret

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Return the proposals of each image and, in training, the losses.

        Args:
            gt_instances: in training, a list of N ``Instances`` with ``gt_boxes`` and
                ``gt_classes``, or ``GroundTruth`` with boxes to ignore. Objects of class -1 become
                such boxes in place, since the ROI heads get the same list.

        Returns:
            list[Instances]: the proposals of each image, with "proposal_boxes" and
                "objectness_logits", best first; in training without those on ignored boxes.
            dict: in training "loss_rpn_cls", "loss_rpn_loc" and, with an nRPN, "loss_nrpn_cls".
        """
        maps = [features[f] for f in self.in_features]
        anchors = self.anchor_generator(maps)
        logits, deltas = self.predict(maps)
        losses = {}
        if self.training:
            assert gt_instances is not None, "HardNegativeRPN requires gt_instances in training!"
            set_all_ignored_aside(gt_instances)
            losses = self.learn(images, features, anchors, logits, deltas, gt_instances)
        proposals = self.predict_proposals(anchors, logits, deltas, images.image_sizes)
        if self.training:
            background_iou = self.anchor_matcher.thresholds[1]
            proposals = withhold_ignored(proposals, gt_instances, background_iou, self.ignore_ioa)
        return proposals, losses

    def predict(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return L logits (N, Hi*Wi*A) and L deltas (N, Hi*Wi*A, 4) of L feature maps."""
        logits, deltas = self.rpn_head(maps)
        # (N, A, Hi, Wi) -> (N, Hi, Wi, A) -> (N, Hi*Wi*A)
        logits = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
        # (N, A*4, Hi, Wi) -> (N, A, 4, Hi, Wi) -> (N, Hi, Wi, A, 4) -> (N, Hi*Wi*A, 4)
        deltas = [
            x.view(x.shape[0], -1, self.anchor_generator.box_dim, x.shape[-2], x.shape[-1])
            .permute(0, 3, 4, 1, 2)
            .flatten(1, -2)
            for x in deltas
        ]
        return logits, deltas

    def learn(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        anchors: list[Boxes],
        logits: list[Tensor],
        deltas: list[Tensor],
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Take one training step of both networks: label, mine, sample, compute losses."""
        rpn_logits = cat(logits, dim=1).detach()  # (N, R)
        labels, ious, gt_boxes = self.label(anchors, gt_instances)
        proposal_ious = ProposalIoUs(anchors, deltas, self.box2box_transform, gt_instances)
        nrpn_logits, hardness, losses = None, torch.full_like(ious, -float("inf")), {}
        if self.negative_rpn is not None:
            is_fp = self.mine(rpn_logits, labels, ious, proposal_ious)
            if get_event_storage().iter < self.warmup_iters:
                losses["loss_nrpn_cls"] = self.negative_rpn.zero()
            else:
                nrpn_logits = self.negative_rpn(images, features)
                weight, alarms = self.nrpn_loss_weight, self.num_false_alarms
                loss = nrpn_loss(nrpn_logits, labels, is_fp, self.nrpn_sampler, weight, alarms)
                losses["loss_nrpn_cls"] = loss
                nrpn_logits = nrpn_logits.detach()
                hardness = self.propose(nrpn_logits, labels, anchors, proposal_ious)
        sample = self.negative_sampler(labels, rpn_logits, ious, hardness)
        losses |= self.losses(anchors, logits, sample.labels, deltas, gt_boxes, ious, proposal_ious)
        if self.negative_rpn is not None:
            log_exchange(rpn_logits, nrpn_logits, labels, is_fp, sample.hard)
        return losses

    def label(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return labels (N, R), IoUs (N, R) and objects' boxes: see :func:`label_anchors`."""
        limits = self.ignore_ioa, self.anchor_boundary_thresh
        return label_anchors(Boxes.cat(anchors), gt_instances, self.anchor_matcher, *limits)

    def mine(
        self, logits: Tensor, labels: Tensor, ious: Tensor, proposal_ious: ProposalIoUs
    ) -> Tensor:
        """Return (N, R) bool: the false positives among anchors with these (N, R)."""
        if self.fp_by == "proposal":
            ious = proposal_ious.of_best(logits, self.num_candidates)
        return self.find_false_positives(logits, labels, ious)

    def propose(
        self, nrpn_logits: Tensor, labels: Tensor, anchors: list[Boxes], proposal_ious: ProposalIoUs
    ) -> Tensor:
        """Return (N, R): the nRPN's logit where it proposes a hard negative, -inf elsewhere."""
        if self.fp_by == "proposal":
            near = proposal_ious.of_best(nrpn_logits, self.num_candidates) >= self.fp_iou
            labels = labels.masked_fill(near, -1)
        return self.propose_hard_negatives(nrpn_logits, labels, Boxes.cat(anchors).tensor)

    def losses(
        self,
        anchors: list[Boxes],
        logits: list[Tensor],
        labels: Tensor,
        deltas: list[Tensor],
        gt_boxes: list[Tensor],
        ious: Tensor,
        proposal_ious: ProposalIoUs,
    ) -> dict[str, Tensor]:
        """Return the RPN's losses (paper, Eq. 2; lambda is ``MODEL.RPN.BBOX_REG_LOSS_WEIGHT``).

        Both terms are divided by the size of the mini-batch, as in Detectron2; with a loss on all
        anchors the objectness term is divided by the number of positives, the mean over processes.

        Args:
            labels, ious: (N, R), sampled labels and the anchors' IoUs.
            gt_boxes: N tensors (R, 4).
        """
        counts = torch.stack([(labels == value).sum() for value in (1, 0)]).tolist()
        for kind, count in zip(("pos", "neg"), counts):
            get_event_storage().put_scalar(f"rpn/num_{kind}_anchors", count / len(labels))

        chosen = torch.nonzero(labels.flatten() >= 0)[:, 0]
        ious = proposal_ious.at(chosen) if self.iou_of == "proposal" else ious.flatten()[chosen]
        chosen_logits = cat(logits, dim=1).flatten()[chosen]
        objectness_loss = self.objectness_loss(chosen_logits, labels.flatten()[chosen], ious).sum()
        arguments = anchors, self.box2box_transform, deltas, gt_boxes, labels == 1
        form = {"box_reg_loss_type": self.box_reg_loss_type, "smooth_l1_beta": self.smooth_l1_beta}
        localization_loss = _dense_box_regression_loss(*arguments, **form)
        size = self.batch_size_per_image * len(labels)
        all_anchors = self.objectness_loss.needs_all_anchors
        losses = {
            "loss_rpn_cls": objectness_loss / (mean_positives(labels) if all_anchors else size),
            "loss_rpn_loc": localization_loss / size,
        }
        return {name: loss * self.loss_weight[name] for name, loss in losses.items()}
