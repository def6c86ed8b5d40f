#!/usr/bin/env python
"""Fit the sizes and ratios of anchors to the objects of a dataset.

    python tools/fit_anchors.py --config-file configs/bccd_rpn.yaml
    python tools/fit_anchors.py --config-file ... --dataset mine_train --k 9 --output anchors

Clusters the objects' widths and heights, at the size at which the network sees the images, by
k-means with the distance 1 - IoU. For each k, the table has the mean IoU of objects and their best
cluster (of shapes: both with the same centre), and how many objects have an anchor of at least
that IoU where anchors really stand, on the grid of the feature maps; then the same for the best
sizes x ratios, the form that Detectron2 needs, and the mean IoU that this form costs. Below it is
the YAML for the suggested k, after which more anchors gain little; for another one, give --k.
Writes anchors.yaml and anchors.png to --output.
"""

import argparse
import os
import re

from command import new_parser, parse, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="names model, image size and datasets")
    parser.add_argument(
        "--dataset", action="append", help="a registered name; may be repeated (DATASETS.TRAIN)"
    )
    parser.add_argument("--k", type=_ks, default="3..12", help="such as 9 or 3..12 (default)")
    parser.add_argument("--output", help="folder to write to (default: OUTPUT_DIR)")
    return parse(parser, args)


def _ks(text: str) -> list[int]:
    match = re.fullmatch(r"(\d{1,3})(?:\.\.(\d{1,3}))?", text)
    first, last = (int(n) for n in (match[1], match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 to 100, or 3..12")
    return list(range(first, last + 1))


def main(args: argparse.Namespace) -> None:
    from detectron2.data import DatasetCatalog

    from nrpn_d2.data.anchors import report
    from nrpn_d2.data.anchors.clusters import merge_shapes
    from nrpn_d2.data.anchors.fitting import fit_anchors, knee, quality
    from nrpn_d2.data.anchors.reach import config_levels
    from nrpn_d2.data.anchors.seen import seen_objects
    from nrpn_d2.data.checks import check_registered
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.utils.saving import atomic_open

    cfg = build_cfg(args.config_file, [*args.opts, "MODEL.WEIGHTS", ""])
    names = args.dataset or cfg.DATASETS.TRAIN
    for name in names:
        check_registered(name, "--dataset" if args.dataset else "DATASETS.TRAIN")
    objects = seen_objects((r for name in names for r in DatasetCatalog.get(name)), cfg)
    levels = config_levels(cfg)
    fits = fit_anchors(objects, levels, args.k)
    present = quality(objects, merge_shapes(objects.shapes), levels)
    count = sum(len(level.anchors) for level in levels)
    suggested = knee([fit.k for fit in fits], [fit.free.mean_iou for fit in fits])
    best = next(fit for fit in fits if fit.k == suggested)
    yaml = report.to_yaml(best)
    print(f"{len(objects.boxes)} objects of {', '.join(names)}")
    print(report.table(present, count, fits))
    if len(levels) > 1:
        print(f"\nPresent anchors:\n{report.level_table(objects, levels)}")
        print(f"\n{suggested} fitted anchors:\n{report.level_table(objects, best.levels)}")
    print(f"\nSuggested: {suggested} anchors\n\n{yaml}")
    folder = args.output or cfg.OUTPUT_DIR
    with atomic_open(os.path.join(folder, "anchors.yaml"), "w") as file:
        file.write(yaml)
    figure = report.plot(present, count, fits, suggested)
    figure.savefig(os.path.join(folder, "anchors.png"), dpi=150)
    print(f"Wrote anchors.yaml and anchors.png to {folder}")


if __name__ == "__main__":
    run(main, parse_args(), log=True)
