#!/usr/bin/env python
"""Train or evaluate a detector whose RPN learns from its own mistakes.

    python train_net.py --config-file configs/voc_nrpn_vgg16.yaml --num-gpus 1
    python train_net.py --config-file ... --resume
    python train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth
    torchrun --nproc_per_node 8 train_net.py --config-file ...

--num-gpus 0 runs on the CPU. Several machines: --num-machines, --machine-rank and --dist-url, or
torchrun's own options.
"""

from detectron2.config import get_cfg
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from nrpn_d2 import add_nrpn_config, check_nrpn_config
from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer, last_checkpoint, set_pixels
from nrpn_d2.config_checks import check_run_config
from nrpn_d2.data import check_datasets, register_datasets
from nrpn_d2.engine.launch import launch
from nrpn_d2.engine.trainer import Trainer
from nrpn_d2.utils.config_file import merge_config_file


def setup(args):
    """Build the config from the file and the command line, and register the datasets it names."""
    cfg = get_cfg()
    add_nrpn_config(cfg)
    merge_config_file(cfg, args.config_file)
    cfg.merge_from_list(args.opts)
    check_run_config(cfg, args.eval_only)
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    set_pixels(cfg, last_checkpoint(cfg.OUTPUT_DIR) if args.resume else None)
    cfg.freeze()
    check_nrpn_config(cfg)
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="nrpn_d2")
    register_datasets(cfg)
    check_datasets(cfg, args.eval_only)
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
    launch(main, default_argument_parser(epilog=__doc__).parse_args())
