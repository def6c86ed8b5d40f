#!/usr/bin/env python
"""Leave the nRPN behind: a checkpoint and a config that Detectron2 runs without this package.

    python tools/export_stock.py --config-file configs/voc_nrpn_R50_FPN.yaml --output exported \\
        MODEL.WEIGHTS output/voc_nrpn_R50_FPN/model_final.pth

writes exported/model.pth and exported/config.yaml, for Detectron2's DefaultPredictor.
"""

import argparse

from command import new_parser, parse, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="the config of the training")
    parser.add_argument("--output", required=True, help="folder to write to")
    return parse(parser, args)


def main(args: argparse.Namespace) -> None:
    from nrpn_d2.checkpoint.trained_model import load_model
    from nrpn_d2.deploy.export import export_stock, needs_this_package
    from nrpn_d2.engine.defaults import build_cfg

    cfg = build_cfg(args.config_file, args.opts)
    for path in export_stock(cfg, load_model(cfg), args.output):
        print(path)
    if needs_this_package(cfg):
        print(
            "Detectron2 has no VGG: before it reads this config, import nrpn_d2 and call "
            "nrpn_d2.add_nrpn_config(cfg). The nRPN is gone all the same"
        )


if __name__ == "__main__":
    run(main, parse_args(), log=True)
