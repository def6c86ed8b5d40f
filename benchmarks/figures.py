#!/usr/bin/env python
"""Make the pictures of README and docs anew; what `make figures` runs.

    python benchmarks/figures.py                      # trains what is not trained yet, then draws
    python benchmarks/figures.py SOLVER.MAX_ITER 100  # to try it out

docs/proposals.png   what RPN, nRPN and detector of the demo find in four test images
docs/predictions.png one of these images as tools/predict.py draws it
docs/shapes_recall.png  recall of shapes_rpn, shapes_nrpn and shapes_nrpn_overlap, seed 1

Runs are kept in output/demo and output/study and not trained again.
"""

import argparse
import os
import subprocess
import sys

from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
CONFIGS = ("shapes_rpn", "shapes_nrpn", "shapes_nrpn_overlap")
IMAGE = "datasets/shapes/JPEGImages/test_00001.png"
COLORS = 128  # of a palette: a third of the size


def call(*arguments: str) -> None:
    """Run a script of the repository, in its root."""
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


def publish(source: str, name: str, width: int | None = None) -> None:
    """Write a picture to docs/ as a small PNG."""
    picture = Image.open(os.path.join(ROOT, source)).convert("RGB")
    if width:
        picture = picture.resize((width, round(picture.height * width / picture.width)))
    picture = picture.quantize(COLORS, dither=Image.Dither.NONE)
    path = os.path.join(ROOT, "docs", name)
    picture.save(path, optimize=True)
    print(f"Wrote {os.path.normpath(path)}: {os.path.getsize(path) // 1024} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the configs'")
    opts = parser.parse_args().opts
    call("tools/demo.py", *opts)
    publish("output/demo/proposals.png", "proposals.png")
    weights = ["MODEL.WEIGHTS", "output/demo/model_final.pth"]
    predictions = ["--input", IMAGE, "--output", "output/predictions", *weights]
    call("tools/predict.py", "--config-file", "configs/shapes_nrpn.yaml", *predictions)
    publish(f"output/predictions/{os.path.basename(IMAGE)}", "predictions.png", width=480)
    call("benchmarks/study.py", "--seeds", "1", "--configs", *CONFIGS, "--", *opts)
    runs = [f"output/study/{config}_seed1" for config in CONFIGS]
    call("tools/compare_runs.py", *runs, "--output", "output/shapes")
    publish("output/shapes/recall.png", "shapes_recall.png")


if __name__ == "__main__":
    main()
