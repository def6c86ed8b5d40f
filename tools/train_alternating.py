#!/usr/bin/env python
"""Train RPN and detector in turn: the four steps of Faster R-CNN (Sec. 3.2) instead of jointly.

    python tools/train_alternating.py --config-file configs/shapes_nrpn.yaml --num-gpus 0 \\
        --iterations 500 500 500 500 OUTPUT_DIR output/alternating
    python train_net.py --config-file configs/shapes_nrpn.yaml --eval-only \\
        MODEL.WEIGHTS output/alternating/model_final.pth

The config is that of joint training. (1) An RPN, with its nRPN if the config has one, and (2) a
detector on its proposals are trained from MODEL.WEIGHTS; (3) another RPN and (4) the detector's own
layers are trained on the detector's backbone, which is frozen. OUTPUT_DIR gets model_final.pth, an
ordinary checkpoint, and a folder for each step. Run it again after a kill: steps that have ended
are not repeated, a half one goes on.
"""

import argparse

from command import new_parser, parse


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="of joint training")
    parser.add_argument(
        "--iterations", type=int, nargs=4, default=(), metavar="N", help="default: MAX_ITER each"
    )
    parser.add_argument("--num-gpus", type=int, default=1, help="on each machine; 0: on the CPU")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="of this machine, from 0 on")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of the first machine")
    return parse(parser, args)


def main(args: argparse.Namespace) -> dict:
    from nrpn_d2.engine.alternating import check_alternating, train_alternating
    from nrpn_d2.engine.defaults import merge_cfg, setup_run

    check_alternating(merge_cfg(args.config_file, args.opts), args.iterations)
    cfg = setup_run(args.config_file, args.opts)
    return train_alternating(cfg, args.iterations)


if __name__ == "__main__":
    arguments = parse_args()
    from nrpn_d2.engine.launch import launch

    launch(main, arguments)
