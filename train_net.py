#!/usr/bin/env python
"""Train or evaluate a detector whose RPN learns from its own mistakes.

    python train_net.py --config-file configs/voc_nrpn_vgg16.yaml --num-gpus 1
    python train_net.py --config-file ... --resume
    python train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth
    torchrun --nproc_per_node 8 train_net.py --config-file ...

Everything is written to OUTPUT_DIR. Several machines: --num-machines, --machine-rank and
--dist-url, or torchrun's own options.
"""

import argparse
import os


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Parse the options of Detectron2's ``default_argument_parser``, in any order."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="see configs/")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    parser.add_argument("--num-gpus", type=int, default=1, help="on each machine; 0: on the CPU")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="of this machine, from 0 on")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of the first machine")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    return parser.parse_intermixed_args(args)


def main(args: argparse.Namespace) -> dict:
    from detectron2.evaluation import verify_results
    from detectron2.utils import comm

    from nrpn_d2.checkpoint.trained_model import load_weights
    from nrpn_d2.engine.defaults import setup_run
    from nrpn_d2.engine.run_page import write_evaluation_page
    from nrpn_d2.engine.trainer import Trainer

    cfg = setup_run(args.config_file, args.opts, resume=args.resume, eval_only=args.eval_only)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        load_weights(cfg, model)
        results = Trainer.test(cfg, model)
        write_evaluation_page(os.path.join(cfg.OUTPUT_DIR, "inference"))
        if comm.is_main_process():
            verify_results(cfg, results)
        return results
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    arguments = parse_args()
    from nrpn_d2.engine.launch import launch

    launch(main, arguments)
