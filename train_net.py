#!/usr/bin/env python
"""Train or evaluate a detector whose RPN learns from its own mistakes.

    python train_net.py --config-file configs/voc_nrpn_vgg16.yaml --num-gpus 1
    python train_net.py --config-file ... --resume
    python train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth

--num-gpus 0 runs on the CPU.
"""
import sys
import weakref

import torch
from detectron2.config import get_cfg
from detectron2.data import build_detection_train_loader
from detectron2.engine import (
    DefaultTrainer,
    default_argument_parser,
    default_setup,
    launch,
)
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from nrpn_d2 import add_nrpn_config, check_nrpn_config
from nrpn_d2.checkpointer import NRPNCheckpointer, last_checkpoint, set_pixels
from nrpn_d2.data import VOCDatasetMapper, register_datasets
from nrpn_d2.evaluation import build_evaluators, with_budgets
from nrpn_d2.events import ExchangePrinter
from nrpn_d2.saving import BestCheckpoint, best_metric


class Trainer(DefaultTrainer):
    """Detectron2's trainer on VOC-layout data, evaluated at several proposal budgets."""

    def __init__(self, cfg):
        super().__init__(scale_nrpn_warmup(cfg, comm.get_world_size()))

    def train(self):
        """Train, and return the results of the evaluation at the end."""
        super().train()
        return self._last_eval_results

    @classmethod
    def build_train_loader(cls, cfg):
        return build_detection_train_loader(cfg, mapper=VOCDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return build_evaluators(cfg, dataset_name)

    def build_hooks(self):
        # DefaultTrainer makes Detectron2's own checkpointer, and then calls this
        self.checkpointer = NRPNCheckpointer.from_config(
            self.cfg, self._trainer.model, trainer=weakref.proxy(self)
        )
        hooks = super().build_hooks()
        if comm.is_main_process() and self.cfg.TEST.EVAL_PERIOD > 0:
            hooks.append(BestCheckpoint(self.checkpointer, best_metric(self.cfg)))
        return hooks

    def build_writers(self):
        return super().build_writers() + [ExchangePrinter()]

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        return super().test(cfg, with_budgets(model, cfg.TEST.PROPOSALS.BUDGETS), evaluators)


def scale_nrpn_warmup(cfg, world_size: int):
    """Scale the nRPN's warm-up as Detectron2 scales the schedule (SOLVER.REFERENCE_WORLD_SIZE)."""
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference == 0 or reference == world_size:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    warmup = cfg.MODEL.NRPN.WARMUP_ITERS
    cfg.MODEL.NRPN.WARMUP_ITERS = int(round(warmup * reference / world_size))
    cfg.freeze()
    return cfg


def setup(args):
    """Build the config from the file and the command line, and register the datasets it names."""
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    set_pixels(cfg, last_checkpoint(cfg.OUTPUT_DIR) if args.resume else None)
    cfg.freeze()
    check_nrpn_config(cfg)
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="nrpn_d2")
    register_datasets(cfg)
    return cfg


def main(args):
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        NRPNCheckpointer.from_config(cfg, model).load(cfg.MODEL.WEIGHTS)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    args = default_argument_parser(epilog=__doc__).parse_args()
    if args.num_gpus > torch.cuda.device_count():
        sys.exit(
            f"--num-gpus {args.num_gpus}, but {torch.cuda.device_count()} usable GPU(s) found: "
            "check the driver with nvidia-smi, or run on the CPU with --num-gpus 0"
        )
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
