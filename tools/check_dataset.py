#!/usr/bin/env python
"""Check datasets before training on them.

    python tools/check_dataset.py --config-file configs/bccd_rpn.yaml --output check
    python tools/check_dataset.py --config-file ... --dataset mine_train --accept "large box"

Reads labels and images of all datasets (default: DATASETS.TRAIN and DATASETS.TEST) and prints what
they consist of and what is wrong: what a run with DATASETS.ON_ERROR "error" stops at, images that
cannot be decoded, duplicate and suspiciously large boxes, and near-duplicate images within and
across datasets. Writes report.json and report.html, a page with pictures, to --output (default:
OUTPUT_DIR). The exit code is 0 if nothing was found but what --accept names, 1 if something
was, and 2 for a wrong command line or config, or a bug.
"""

import argparse
import os
import sys
import traceback

from command import new_parser, parse, run


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, config="names model, image size and datasets")
    parser.add_argument("--dataset", action="append", help="a registered name; may be repeated")
    parser.add_argument(
        "--accept", action="append", default=[], metavar="KIND", help="of finding; may be repeated"
    )
    parser.add_argument("--output", help="folder to write to")
    return parse(parser, args)


def main(args: argparse.Namespace) -> bool:
    """Return whether something is wrong."""
    from nrpn_d2.data.anchors.reach import config_levels
    from nrpn_d2.data.checks import check_registered
    from nrpn_d2.data.inspection.inspection import inspect_datasets
    from nrpn_d2.data.inspection.page import page_content
    from nrpn_d2.data.inspection.report import kinds, to_json, to_text
    from nrpn_d2.engine.defaults import build_cfg
    from nrpn_d2.utils.page import write_page
    from nrpn_d2.utils.saving import atomic_open

    opts = [*args.opts, "MODEL.WEIGHTS", "", "DATASETS.ON_ERROR", "skip"]
    cfg = build_cfg(args.config_file, opts)
    names = args.dataset or [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if not names:
        raise ValueError("DATASETS.TRAIN and DATASETS.TEST are empty; name datasets with --dataset")
    for name in names:
        check_registered(name, "--dataset" if args.dataset else "DATASETS.TRAIN or TEST")
    inspection = inspect_datasets(cfg, names, config_levels(cfg))
    print(to_text(inspection))
    folder = args.output or cfg.OUTPUT_DIR
    with atomic_open(os.path.join(folder, "report.json"), "w") as file:
        file.write(to_json(inspection, args.accept))
    title = f"Check of {', '.join(inspection.statistics)}"
    write_page(os.path.join(folder, "report.html"), title, [*page_content(inspection, cfg)])
    print(f"\nWrote report.json and report.html to {folder}")
    return not set(kinds(inspection)) <= set(args.accept)


if __name__ == "__main__":
    arguments = parse_args()
    try:
        is_wrong = run(main, arguments)
    except SystemExit as error:  # 1 is for findings
        print(error, file=sys.stderr)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.exit(2)
    sys.exit(1 if is_wrong else 0)
