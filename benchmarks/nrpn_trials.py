#!/usr/bin/env python
"""Ideas by which an nRPN might keep up with its RPN, to be tried before one is built in.

    VOC_ANIMALS_ROOT=/path python benchmarks/nrpn_trials.py teacher OUTPUT_DIR output/trial_teacher

trains `iou_nrpn` of configs/studies/voc_animals.yaml with one idea. Besides the usual scalars,
nrpn/next_ap is the average precision of the nRPN's ranking of an image for what the RPN mistakes
when it sees the same image, flipped the same way, the next time. `tools/study.py ... --evaluate`
evaluates the folder of a trial as that of a run. docs/results.md has what has not run yet.
"""

import argparse
import copy
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from nrpn_d2.engine.defaults import setup_run
from nrpn_d2.engine.trainer import Trainer
from nrpn_d2.modeling.events import _average_precision
from nrpn_d2.modeling.hard_negative_rpn import HardNegativeRPN
from nrpn_d2.modeling.negative_rpn import nrpn_loss
from nrpn_d2.modeling.proposal_ious import ProposalIoUs
from nrpn_d2.modeling.samplers import NRPN

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "voc_animals_iou.yaml"
BEST_NRPN = [
    *("MODEL.RPN.NEGATIVE_SAMPLER.NAME", "NRPN"),
    *("MODEL.NRPN.FP_BY", "proposal"),
    *("MODEL.NRPN.FP_SELECT", "overestimate_topk"),
    *("MODEL.NRPN.FALSE_ALARMS", 8),
]


class Plain(HardNegativeRPN):
    """No idea; measures nrpn/next_ap, as all of them do."""

    def prepare(self, model: nn.Module, solver: CfgNode) -> None:
        """Watch which images the model is given; ``solver`` is the SOLVER section of its config."""
        self.solver, self.rankings = solver, {}
        model.register_forward_pre_hook(self._remember_images)

    def _remember_images(self, model: nn.Module, args: tuple) -> None:
        if model.training:
            # The boxes tell whether the image is flipped
            self.images = [(x["file_name"], str(x["instances"].gt_boxes.tensor)) for x in args[0]]

    def mine(self, logits, labels, ious, proposal_ious):
        is_fp = super().mine(logits, labels, ious, proposal_ious)
        seen = [i for i, image in enumerate(self.images) if image in self.rankings]
        if seen:
            ranking = torch.full_like(logits[seen], -float("inf"))
            indices = torch.stack([self.rankings[self.images[i]] for i in seen])
            places = -torch.arange(indices.shape[1], dtype=ranking.dtype).expand(indices.shape)
            ranking.scatter_(1, indices, places)
            value = float(_average_precision(ranking, labels[seen] == 0, is_fp[seen]))
            if value == value:  # not NaN
                get_event_storage().put_scalar("nrpn/next_ap", value)
        return is_fp

    def propose(self, nrpn_logits, labels, anchors, proposal_ious):
        ranked = nrpn_logits.masked_fill(labels != 0, -float("inf"))
        for image, indices in zip(self.images, ranked.topk(1000, dim=1).indices):
            self.rankings[image] = indices
        return super().propose(nrpn_logits, labels, anchors, proposal_ious)


class Product(Plain):
    """Hardness is the product of the nRPN's score and the RPN's own."""

    def prepare(self, model, solver):
        super().prepare(model, solver)
        self.negative_sampler.__class__ = ProductSampler


class ProductSampler(NRPN):
    def hard_negatives(self, background, quota, logits, ious, hardness):
        return self._hardest(logsigmoid(hardness) + logsigmoid(logits.float()), background, quota)


class FirstHalf(Plain):
    """Hard negatives stop in the middle of the training."""

    def propose(self, nrpn_logits, labels, anchors, proposal_ious):
        hardness = super().propose(nrpn_logits, labels, anchors, proposal_ious)
        late = get_event_storage().iter >= self.solver.MAX_ITER // 2
        return torch.full_like(hardness, -float("inf")) if self.is_silent(late) else hardness

    def is_silent(self, late: bool) -> bool:
        return late


class SecondHalf(FirstHalf):
    """The nRPN learns after its warm-up; its hard negatives start in the middle."""

    def is_silent(self, late: bool) -> bool:
        return not late


class Memory(Plain):
    """What the RPN mistook when it saw the image before is a false positive, too."""

    def prepare(self, model, solver):
        super().prepare(model, solver)
        self.mistakes = {}

    def mine(self, logits, labels, ious, proposal_ious):
        is_fp = super().mine(logits, labels, ious, proposal_ious)
        background = labels == 0
        past = [self.mistakes.get(image, fp) for image, fp in zip(self.images, is_fp)]
        self.mistakes.update(zip(self.images, is_fp))
        return is_fp | (torch.stack(past) & background)


class TwoUpdates(Plain):
    """Two updates of the nRPN for each of the RPN: one of its own SGD first."""

    def prepare(self, model, solver):
        super().prepare(model, solver)
        self.weights = [p for p in self.negative_rpn.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(self.weights, solver.BASE_LR, solver.MOMENTUM)
        steps = torch.optim.lr_scheduler.MultiStepLR
        self.schedule = steps(self.optimizer, solver.STEPS, solver.GAMMA)

    def learn(self, images, features, anchors, logits, deltas, gt_instances):
        if get_event_storage().iter >= self.warmup_iters:
            self.update_nrpn(images, features, anchors, logits, deltas, gt_instances)
        self.schedule.step()
        return super().learn(images, features, anchors, logits, deltas, gt_instances)

    def update_nrpn(self, images, features, anchors, logits, deltas, gt_instances) -> None:
        labels, ious, _ = self.label(anchors, gt_instances)
        proposal_ious = ProposalIoUs(anchors, deltas, self.box2box_transform, gt_instances)
        rpn_logits = torch.cat(logits, dim=1).detach()
        is_fp = HardNegativeRPN.mine(self, rpn_logits, labels, ious, proposal_ious)
        nrpn_logits = self.negative_rpn(images, features)
        loss = nrpn_loss(nrpn_logits, labels, is_fp, self.nrpn_sampler, 1.0, self.num_false_alarms)
        self.optimizer.zero_grad()
        for p, grad in zip(self.weights, torch.autograd.grad(loss, self.weights)):
            p.grad = grad
        nn.utils.clip_grad_norm_(self.weights, self.solver.CLIP_GRADIENTS.CLIP_VALUE)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Teacher(Plain):
    """The mistakes are those of a moving average of the RPN and its backbone."""

    momentum = 0.99

    def prepare(self, model, solver):
        super().prepare(model, solver)
        # Tuples, so that the copies are no part of the model and its checkpoints
        self.originals = model.backbone, self.rpn_head
        self.teacher = tuple(copy.deepcopy(x).requires_grad_(False) for x in self.originals)
        model.backbone.register_forward_hook(self._teach)

    @torch.no_grad()
    def _teach(self, backbone: nn.Module, args: tuple, output: dict[str, Tensor]) -> None:
        if not backbone.training:
            return
        iteration = get_event_storage().iter
        momentum = min(self.momentum, iteration / (iteration + 10))
        for original, copied in zip(self.originals, self.teacher):
            for p, mean in zip(original.parameters(), copied.parameters()):
                mean.lerp_(p, 1 - momentum)
        copied_backbone, head = self.teacher
        maps = copied_backbone(args[0])
        logits, _ = head([maps[f] for f in self.in_features])
        self.taught = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in logits], dim=1)

    def mine(self, logits, labels, ious, proposal_ious):
        return super().mine(self.taught, labels, ious, proposal_ious)


TRIALS = {
    "plain": Plain,
    "product": Product,
    "first_half": FirstHalf,
    "second_half": SecondHalf,
    "memory": Memory,
    "two_updates": TwoUpdates,
    "teacher": Teacher,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    args = parser.parse_args()
    cfg = setup_run(str(CONFIG), [*BEST_NRPN, *args.opts])
    trainer = Trainer(cfg)
    model = trainer.model
    # The config and the checkpoint stay those of a HardNegativeRPN, which tools/study.py evaluates
    model.proposal_generator.__class__ = TRIALS[args.trial]
    trainer.resume_or_load(resume=False)
    model.proposal_generator.prepare(model, cfg.SOLVER)
    trainer.train()


if __name__ == "__main__":
    main()
