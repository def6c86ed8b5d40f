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
from functools import partial
from typing import Callable, Dict, List, Optional, Tuple

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from .checkpoint import hide_from_name_matching
from .config import check_features, check_nrpn_config, check_registered
from .events import log_exchange
from .labels import label_anchors
from .losses import OBJECTNESS_LOSS_REGISTRY, bce
from .mining import false_alarms, false_positives, hard_negatives, nrpn_labels
from .negative_rpn import NegativeRPN
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
        negative_rpn: Optional[NegativeRPN] = None,
        nrpn_sampler: Optional[NRPN] = None,
        find_false_positives: Callable = false_positives,
        propose_hard_negatives: Callable = partial(
            hard_negatives, pre_nms_topk=1000, nms_thresh=0.7
        ),
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
            warmup_iters: iterations before the nRPN trains and its hard negatives are used.
            nrpn_loss_weight: weight of the nRPN's loss.
            fp_by: whose IoUs ``find_false_positives`` is given: the "anchor"'s or its "proposal"'s;
                with "proposal" hard negatives, too, have a proposal with an IoU below ``fp_iou``.
            fp_iou: see ``fp_by``.
            num_candidates: with ``fp_by`` "proposal", the number of best-scored anchors of an image
                that are looked at, those of the RPN for false positives and those of the nRPN for
                hard negatives.
            num_false_alarms: see ``MODEL.NRPN.FALSE_ALARMS``.
            ignore_ioa: background anchors with at least this fraction of their area on an ignored
                box (``gt_classes == -1``: a difficult object) are ignored.
            kwargs: those of Detectron2's ``RPN``.

        Raises:
            ValueError: for a loss made for all anchors on a sampled mini-batch, or the reverse.
        """
        super().__init__(**kwargs)
        if objectness_loss.needs_all_anchors != negative_sampler.keeps_all_anchors:
            raise ValueError(
                f"MODEL.RPN.OBJECTNESS_LOSS.NAME {type(objectness_loss).__name__!r} does not go "
                f"with MODEL.RPN.NEGATIVE_SAMPLER.NAME {type(negative_sampler).__name__!r}: focal "
                "losses weigh all anchors (sampler 'All'), the others need a sampled mini-batch"
            )
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
        if negative_rpn is not None:
            hide_from_name_matching(negative_rpn)

    @classmethod
    def from_config(cls, cfg, input_shape: Dict[str, ShapeSpec]):
        check_nrpn_config(cfg)
        check_features(cfg, input_shape)
        check_registered(cfg, "MODEL.RPN.OBJECTNESS_LOSS.NAME", OBJECTNESS_LOSS_REGISTRY)
        check_registered(cfg, "MODEL.RPN.NEGATIVE_SAMPLER.NAME", NEGATIVE_SAMPLER_REGISTRY)
        loss, sampler = cfg.MODEL.RPN.OBJECTNESS_LOSS.NAME, cfg.MODEL.RPN.NEGATIVE_SAMPLER.NAME
        ret = super().from_config(cfg, input_shape)
        ret["objectness_loss"] = OBJECTNESS_LOSS_REGISTRY.get(loss)(cfg)
        ret["negative_sampler"] = NEGATIVE_SAMPLER_REGISTRY.get(sampler)(cfg)
        ret["ignore_ioa"] = cfg.MODEL.NRPN.IGNORE_IOA
        if sampler == "NRPN":
            nrpn = cfg.MODEL.NRPN
            ret["negative_rpn"] = NegativeRPN(cfg, input_shape)
            ret["nrpn_sampler"] = NRPN(
                batch_size_per_image=nrpn.BATCH_SIZE_PER_IMAGE,
                positive_fraction=nrpn.POSITIVE_FRACTION,
                hard_fraction=nrpn.OBJECT_FRACTION,
            )
            ret["find_false_positives"] = partial(
                false_positives,
                select=nrpn.FP_SELECT,
                score=nrpn.FP_SCORE,
                iou=nrpn.FP_IOU,
                topk=nrpn.FP_TOPK,
            )
            ret["propose_hard_negatives"] = partial(
                hard_negatives, pre_nms_topk=nrpn.PRE_NMS_TOPK, nms_thresh=nrpn.NMS_THRESH
            )
            ret["warmup_iters"] = nrpn.WARMUP_ITERS
            ret["nrpn_loss_weight"] = nrpn.LOSS_WEIGHT
            ret["fp_by"] = nrpn.FP_BY
            ret["fp_iou"] = nrpn.FP_IOU
            ret["num_candidates"] = nrpn.PRE_NMS_TOPK
            ret["num_false_alarms"] = nrpn.FALSE_ALARMS
        return ret

    def forward(
        self,
        images: ImageList,
        features: Dict[str, torch.Tensor],
        gt_instances: Optional[List[Instances]] = None,
    ):
        """
        Args:
            images: N images.
            features: the backbone's feature maps by name.
            gt_instances: in training, N ``Instances`` with ``gt_boxes`` and ``gt_classes``; objects
                of class -1 (difficult ones) are ignored.

        Returns:
            list[Instances]: the proposals of each image, with "proposal_boxes" and
                "objectness_logits", best first.
            dict: in training "loss_rpn_cls", "loss_rpn_loc" and, with an nRPN, "loss_nrpn_cls".
        """
        maps = [features[f] for f in self.in_features]
        anchors = self.anchor_generator(maps)
        logits, deltas = self.predict(maps)
        losses = {}
        if self.training:
            assert gt_instances is not None, "HardNegativeRPN requires gt_instances in training!"
            losses = self.learn(images, features, anchors, logits, deltas, gt_instances)
        proposals = self.predict_proposals(anchors, logits, deltas, images.image_sizes)
        return proposals, losses

    def predict(self, maps: List[torch.Tensor]):
        """L feature maps -> L logits of shape (N, Hi*Wi*A) and L deltas of (N, Hi*Wi*A, 4)."""
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

    @torch.jit.unused
    def learn(self, images, features, anchors, logits, deltas, gt_instances):
        """One training step of both networks: label, mine, sample, compute losses."""
        labels, ious, gt_boxes = label_anchors(
            Boxes.cat(anchors),
            gt_instances,
            self.anchor_matcher,
            ignore_ioa=self.ignore_ioa,
            boundary_thresh=self.anchor_boundary_thresh,
        )
        scores = cat(logits, dim=1).detach()  # (N, R)
        proposal_ious = None
        if "proposal" in (self.fp_by, self.iou_of):
            proposal_ious = ProposalIoUs(anchors, deltas, self.box2box_transform, gt_instances)
        hardness, losses = None, {}
        if self.negative_rpn is not None:
            ious_of_fp = ious
            if self.fp_by == "proposal":
                ious_of_fp = proposal_ious.of_best(scores, self.num_candidates)
            found = self.find_false_positives(scores, labels, ious_of_fp)
            nrpn_logits, losses["loss_nrpn_cls"] = self.train_nrpn(images, features, labels, found)
            if nrpn_logits is not None:
                eligible = labels
                if self.fp_by == "proposal":
                    near = proposal_ious.of_best(nrpn_logits, self.num_candidates) >= self.fp_iou
                    eligible = labels.masked_fill(near, -1)
                anchor_boxes = Boxes.cat(anchors).tensor
                hardness = self.propose_hard_negatives(nrpn_logits, eligible, anchor_boxes)
        sample = self.negative_sampler(labels, scores, ious, hardness)
        losses.update(
            self.losses(anchors, logits, sample.labels, deltas, gt_boxes, ious, proposal_ious)
        )
        if self.negative_rpn is not None:
            log_exchange(scores, nrpn_logits, found, sample.hard)
        return losses

    def train_nrpn(
        self, images, features, labels: torch.Tensor, found: torch.Tensor
    ) -> Tuple[Optional[torch.Tensor], torch.Tensor]:
        """Teach the nRPN the RPN's false positives ``found`` (N, R).

        Returns:
            The nRPN's (N, R) logits, or None during the warm-up; its loss.
        """
        if get_event_storage().iter < self.warmup_iters:
            return None, self.negative_rpn.zero()
        logits = self.negative_rpn(images, features)
        # Sample its mini-batch: false positives, then objects, on which it has to stay silent,
        # then random background
        labels_of_nrpn = nrpn_labels(labels, found)
        objects = torch.rand(labels.shape, device=labels.device)
        objects = objects.masked_fill(labels != 1, -float("inf"))
        sampled = self.nrpn_sampler(labels_of_nrpn, None, None, objects).labels
        if self.num_false_alarms > 0:
            alarms = false_alarms(logits.detach(), labels_of_nrpn, self.num_false_alarms)
            sampled = sampled.masked_fill(alarms, 0)
        chosen = torch.nonzero(sampled.flatten() >= 0)[:, 0]
        loss = bce(logits.flatten()[chosen], sampled.flatten()[chosen]).sum()
        normalizer = self.nrpn_sampler.batch_size_per_image * len(labels)
        loss = loss * (self.nrpn_loss_weight / normalizer)
        if self.negative_rpn.has_unread_layers:
            loss = loss + self.negative_rpn.zero()
        return logits.detach(), loss

    @torch.no_grad()
    def propose_negatives(
        self, images: ImageList, features: Dict[str, torch.Tensor]
    ) -> List[Instances]:
        """The nRPN's proposals (paper, Fig. 4b), to look at: anchors, best first, without labels.

        Returns:
            N ``Instances`` with "proposal_boxes", clipped to the image, and "objectness_logits".
        """
        anchors = Boxes.cat(self.anchor_generator([features[f] for f in self.in_features])).tensor
        logits = self.negative_rpn(images, features)
        kept = self.propose_hard_negatives(logits, torch.zeros_like(logits), anchors)
        proposals = []
        for scores, image_size in zip(kept, images.image_sizes):
            order = scores.argsort(descending=True)[: int((scores > -float("inf")).sum())]
            boxes = Boxes(anchors[order])
            boxes.clip(image_size)
            fields = {"proposal_boxes": boxes, "objectness_logits": scores[order]}
            proposals.append(Instances(image_size, **fields))
        return proposals

    def losses(
        self,
        anchors: List[Boxes],
        pred_objectness_logits: List[torch.Tensor],
        gt_labels: torch.Tensor,
        pred_anchor_deltas: List[torch.Tensor],
        gt_boxes: List[torch.Tensor],
        ious: torch.Tensor,
        proposal_ious: Optional[ProposalIoUs] = None,
    ) -> Dict[str, torch.Tensor]:
        """The RPN's losses (paper, Eq. 2; lambda is ``MODEL.RPN.BBOX_REG_LOSS_WEIGHT``).

        Both terms are divided by the size of the mini-batch, as in Detectron2; with a loss on all
        anchors the objectness term is divided by the number of positives, the mean over processes.

        Args:
            gt_labels: (N, R), sampled.
            gt_boxes: N tensors (R, 4).
            ious: (N, R), of anchors.
            proposal_ious: needed for a loss that wants the IoUs of proposals.
            others: as in Detectron2's ``RPN.losses``.
        """
        num_images, num_processes = len(gt_labels), comm.get_world_size()
        positive, valid = gt_labels == 1, gt_labels >= 0
        counts = torch.stack([positive.sum(), valid.sum(), positive.sum()])
        all_anchors = self.objectness_loss.needs_all_anchors
        if all_anchors and num_processes > 1:
            torch.distributed.all_reduce(counts[2])
        num_positives, num_valid, all_positives = counts.tolist()
        storage = get_event_storage()
        storage.put_scalar("rpn/num_pos_anchors", num_positives / num_images)
        storage.put_scalar("rpn/num_neg_anchors", (num_valid - num_positives) / num_images)

        chosen = torch.nonzero(valid.flatten())[:, 0]
        logits = cat(pred_objectness_logits, dim=1).flatten()[chosen]
        if self.iou_of == "proposal":
            num_anchors = gt_labels.shape[1]
            images = torch.div(chosen, num_anchors, rounding_mode="floor")
            chosen_ious = proposal_ious.of(images, chosen % num_anchors)
        else:
            chosen_ious = ious.flatten()[chosen]
        objectness_loss = self.objectness_loss(
            logits, gt_labels.flatten()[chosen], chosen_ious
        ).sum()
        localization_loss = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            positive,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        batch_size = self.batch_size_per_image * num_images
        normalizer = max(all_positives, 1) / num_processes if all_anchors else batch_size
        losses = {
            "loss_rpn_cls": objectness_loss / normalizer,
            "loss_rpn_loc": localization_loss / batch_size,
        }
        return {name: loss * self.loss_weight[name] for name, loss in losses.items()}
