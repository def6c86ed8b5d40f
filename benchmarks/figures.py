#!/usr/bin/env python
"""Make the pictures of README and docs anew; what `make figures` runs.

    python benchmarks/figures.py                      # trains what is not trained yet, then draws
    python benchmarks/figures.py SOLVER.MAX_ITER 100  # to try it out

docs/false_positives.png  confident false positives of shapes_rpn and of shapes_nrpn
docs/proposals.png        what RPN, nRPN and detector of shapes_nrpn find in four test images
docs/predictions.png      one of these images as tools/predict.py draws it
docs/shapes_recall.png    recall of shapes_rpn and shapes_nrpn
docs/run_page.png         the page of shapes_nrpn, if there is a Chromium
docs/comparison_page.png  the page of both, likewise

Both have SEED 1. The runs are kept in output/figures and not trained again. Not made here:
docs/voc_animals_calibration.png (report/calibration.png of tools/study.py), docs/audit_page.png (a
screenshot of benchmarks/audit.py's page), docs/tutorial_false_positives.png (docs/tutorial.md).
"""

import argparse
import os
import shutil
import subprocess
import sys

from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
CONFIGS = ("shapes_rpn", "shapes_nrpn")
IMAGE = "datasets/shapes/JPEGImages/test_00000.png"


def call(*arguments: str) -> None:
    """Run a script of the repository."""
    subprocess.run([sys.executable, *arguments], check=True)


def publish(source: str, name: str, width: int | None = None) -> None:
    """Write a picture to docs/ as a small PNG."""
    picture = Image.open(source).convert("RGB")
    if width:
        picture = picture.resize((width, round(picture.height * width / picture.width)))
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE  # keeps the colours of lines
    picture = picture.quantize(256, method, kmeans=3, dither=dither)
    path = os.path.join("docs", name)
    picture.save(path, optimize=True)
    print(f"Wrote {path}: {os.path.getsize(path) // 1024} KiB")


def photograph(page: str, name: str, height: int) -> None:
    """Publish a screenshot of a page."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        print(f"docs/{name} stays: there is no chromium")
        return
    path = os.path.abspath(f"output/{name}")
    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size=1280,{height}"]
    command = [browser, *flags, f"--screenshot={path}", f"file://{os.path.abspath(page)}"]
    subprocess.run(command, check=True, capture_output=True)
    publish(path, name)


def run_folder(config: str) -> str:
    return f"output/figures/{config}"


def train(config: str, opts: list[str]) -> None:
    if not os.path.exists(f"{run_folder(config)}/inference/results.json"):
        command = ["--config-file", f"configs/{config}.yaml", "--num-gpus", "0", "--resume"]
        call("train_net.py", *command, "OUTPUT_DIR", run_folder(config), "SEED", "1", *opts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the configs'")
    opts = parser.parse_args().opts
    os.chdir(ROOT)
    for config in CONFIGS:
        train(config, opts)
    folder = run_folder("shapes_nrpn")
    call("tools/demo.py", "OUTPUT_DIR", folder, "SEED", "1", *opts)  # finds it trained, and draws
    publish(f"{folder}/proposals.png", "proposals.png")
    weights = ["MODEL.WEIGHTS", f"{folder}/model_final.pth"]
    predictions = ["--input", IMAGE, "--output", "output/predictions", *weights]
    call("tools/predict.py", "--config-file", "configs/shapes_nrpn.yaml", *predictions)
    publish(f"output/predictions/{os.path.basename(IMAGE)}", "predictions.png", width=480)
    models = [f"configs/{config}.yaml" for config in CONFIGS]
    weights = [f"{run_folder(config)}/model_final.pth" for config in CONFIGS]
    call(
        *("tools/visualize.py", "false-positives", "--config-file", models[0], "--compare"),
        *(models[1], weights[1], "--output", "output/false_positives.png"),
        *("MODEL.WEIGHTS", weights[0]),
    )
    publish("output/false_positives.png", "false_positives.png", width=1200)
    call("tools/compare_runs.py", *map(run_folder, CONFIGS), "--output", "output/shapes")
    publish("output/shapes/recall.png", "shapes_recall.png", width=1200)
    photograph(f"{folder}/index.html", "run_page.png", 1000)
    photograph("output/shapes/index.html", "comparison_page.png", 1000)


if __name__ == "__main__":
    main()
