#!/usr/bin/env python
"""How long reading the annotations of a large dataset takes, and how much memory.

    python benchmarks/read_voc.py                                # 100,000 images, made for it
    python benchmarks/read_voc.py --folder DIR --split train --classes cat dog      # one's own

Made data: JPEG files of 500 x 375 pixels and VOC's annotations with OBJECTS objects each, in a
temporary folder (1 GB of disk for 100,000 images). The reading runs in a process of its own.

"CPU s" are those of all processes together: divided by the cores, what an idle machine needs.
Memory is the largest sum, over the process and those it starts, of the proportional set size
(shared pages count once), sampled every 0.1 s; "at rest" is what the process held with the package
imported (torch among it), before it read; "after" it held the records. The operating system has
the files in its own cache, as far as they fit into it.
"""

import argparse
import io
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection

import numpy as np
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from nrpn_d2.data import read_voc

CLASSES = ["cat", "dog", "person"]
SIZE = (500, 375)
OBJECT = (
    "<object><name>{}</name><pose>Unspecified</pose><truncated>0</truncated>"
    "<difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    "</bndbox></object>"
)
XML = (
    "<annotation><folder>VOC</folder><filename>{}.jpg</filename><size><width>{}</width>"
    "<height>{}</height><depth>3</depth></size><segmented>0</segmented>\n{}\n</annotation>\n"
)


def annotation(rng: np.random.Generator, image_id: str, objects: int) -> str:
    """Return the text of one annotation file with random boxes."""
    lines = []
    for _ in range(objects):
        x0, y0 = rng.integers(1, SIZE[0] - 20), rng.integers(1, SIZE[1] - 20)
        x1, y1 = rng.integers(x0 + 1, SIZE[0]), rng.integers(y0 + 1, SIZE[1])
        lines.append(OBJECT.format(rng.choice(CLASSES), rng.integers(0, 2), x0, y0, x1, y1))
    return XML.format(image_id, *SIZE, "\n".join(lines))


def make_folder(root: str, images: int, objects: int) -> None:
    """Make a folder in VOC layout with the split "train"."""
    for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
        os.makedirs(os.path.join(root, folder))
    encoded = io.BytesIO()
    gradient = np.linspace(0, 255, SIZE[0], dtype=np.uint8)
    Image.fromarray(np.broadcast_to(gradient, SIZE[::-1])).convert("RGB").save(encoded, "JPEG")
    rng = np.random.default_rng(0)
    ids = [f"{i:06d}" for i in range(images)]
    for image_id in tqdm(ids, desc="Making the data"):
        with open(os.path.join(root, "JPEGImages", image_id + ".jpg"), "wb") as file:
            file.write(encoded.getvalue())
        with open(os.path.join(root, "Annotations", image_id + ".xml"), "w") as file:
            file.write(annotation(rng, image_id, objects))
    with open(os.path.join(root, "ImageSets", "Main", "train.txt"), "w") as file:
        file.writelines(image_id + "\n" for image_id in ids)


def memory_of_tree(pid: int) -> int:
    """Return the proportional set size of a process and its descendants, in bytes."""
    total = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                total += sum(memory_of_tree(child) for child in file.read().split())
    except (OSError, StopIteration):  # it has ended
        pass
    return total


def read(arguments: tuple, connection: Connection) -> None:
    """Read in a process of its own; wait for a word before and after."""
    connection.send(None)
    connection.recv()
    start, cpu_start = time.perf_counter(), sum(os.times()[:4])
    records = read_voc(*arguments)
    seconds, cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - cpu_start
    objects = sum(len(record["annotations"]) for record in records)
    connection.send((len(records), objects, seconds, cpu_seconds))
    connection.recv()


def measure(arguments: tuple) -> list[float]:
    """Return a row of the table: one reading in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=read, args=(arguments, theirs))
    process.start()
    theirs.close()
    ours.recv()
    at_rest = peak = memory_of_tree(process.pid)
    ours.send(None)
    while not ours.poll(0.1):
        peak = max(peak, memory_of_tree(process.pid))
    images, objects, seconds, cpu_seconds = ours.recv()
    after = memory_of_tree(process.pid)
    ours.send(None)
    process.join()
    memory = [value / 2**20 for value in (at_rest, peak, after)]
    return [images, objects, seconds, cpu_seconds, images / seconds, *memory]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--objects", type=int, default=3, help="in each image")
    parser.add_argument("--folder", help="a folder of one's own in VOC layout")
    parser.add_argument("--split", default="train")
    parser.add_argument("--classes", nargs="+", default=CLASSES)
    args = parser.parse_args()
    if bool(args.folder) != (args.classes is not CLASSES):
        parser.error("--folder and --classes belong together")
    print(f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as made:
        if not args.folder:
            make_folder(os.path.join(made, "data"), args.images, args.objects)
        root = args.folder or os.path.join(made, "data")
        row = measure((root, args.split, args.classes))
    headers = ["images", "objects", "seconds", "CPU s", "images/s"]
    headers += ["MiB at rest", "peak", "after"]
    print(tabulate([row], headers, intfmt=",", floatfmt=("", "", ".1f", ".1f") + (".0f",) * 4))
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
