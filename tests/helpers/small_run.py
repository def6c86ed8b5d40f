"""A run of train_net.py that takes half a second, for tests that break something in it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from voc_folder import voc_xml, write_voc_folder

import train_net
from nrpn_d2.engine.launch import launch

ROOT = Path(train_net.__file__).resolve().parent
CAT = ("cat", (11, 6, 40, 35))
SIZE = (64, 48)


class Run:
    """One image with one cat, a small VGG, one iteration on the CPU; all of it may be changed.

    Attributes:
        image, xml, split, root (Path): the data, in VOC layout.
        config, out (Path): config file and output folder.
        flags (list[str]), options (dict), more (list[str]): the command line.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.root = Path(write_voc_folder(folder / "data", [{"id": "a", "size": SIZE}]))
        self.image = self.root / "JPEGImages" / "a.jpg"
        self.xml = self.root / "Annotations" / "a.xml"
        self.split = self.root / "ImageSets" / "Main" / "train.txt"
        self.objects(CAT)
        self.out = folder / "out"
        self.config = ROOT / "configs" / "shapes_nrpn.yaml"
        self.flags = ["--num-gpus", "0"]
        self.options = {
            "MODEL.VGG.WIDTHS": "[8, 8, 8, 8]",
            "MODEL.VGG.DEPTHS": "[1, 1, 1, 1]",
            "MODEL.VGG.NORM": "",
            "MODEL.VGG.FC_DIM": "16",
            "MODEL.ROI_HEADS.NUM_CLASSES": "1",
            "MODEL.NRPN.WARMUP_ITERS": "0",
            "MODEL.NRPN.FP_SELECT": "topk",
            "INPUT.MIN_SIZE_TRAIN": "(48,)",
            "SOLVER.IMS_PER_BATCH": "1",
            "SOLVER.MAX_ITER": "1",
            "DATALOADER.NUM_WORKERS": "0",
            "DATASETS.VOC_NAME": "own",
            "DATASETS.VOC_ROOT": str(self.root),
            "DATASETS.VOC_CLASSES": "['cat']",
            "DATASETS.TRAIN": "('own_train',)",
            "DATASETS.TEST": "()",
            "OUTPUT_DIR": str(self.out),
            "SEED": "1",
        }
        self.more = []

    def objects(self, *objects, size=SIZE):
        self.xml.write_text(voc_xml(size, objects))

    def picture(self, mode="RGB", size=SIZE, kind="JPEG"):
        """Replaces the image by one that is all black, and the XML by one of that size."""
        encoded = io.BytesIO()
        Image.new(mode, size).save(encoded, kind)
        self.image.write_bytes(encoded.getvalue())
        self.objects(("cat", (1, 1, *size)), size=size)

    def config_file(self, content):
        self.config = self.folder / "config.yaml"
        self.config.write_bytes(content if isinstance(content, bytes) else content.encode())

    def weights(self, content):
        """MODEL.WEIGHTS: the bytes of a file, or what torch shall save in it."""
        path = self.folder / "weights.pth"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        self.options["MODEL.WEIGHTS"] = str(path)

    def last_checkpoint(self, content: bytes):
        self.out.mkdir()
        (self.out / "last_checkpoint").write_bytes(content)
        self.flags.append("--resume")

    @property
    def command(self):
        options = [word for pair in self.options.items() for word in pair]
        return ["--config-file", str(self.config), *self.flags, *options, *self.more]

    def train(self):
        """In this process."""
        launch(train_net.main, train_net.parse_args(self.command))

    def train_elsewhere(self, **environment):
        """``python train_net.py ...``; its exit status, and what it wrote to stdout and stderr."""
        command = [sys.executable, str(ROOT / "train_net.py"), *self.command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        ended = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=250
        )
        return ended.returncode, ended.stdout, ended.stderr

    def data_files(self):
        """Every file of the dataset, with its size and the time of its last change."""
        paths = sorted(path for path in self.root.rglob("*") if not path.is_dir())
        return [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths]

    def checkpoints(self):
        """The bytes of each checkpoint, and what is said to be the last one."""
        paths = [*self.out.glob("model_*"), *self.out.glob("last_checkpoint")]
        return {path.name: path.read_bytes() for path in paths}

    def check_it_has_trained(self):
        weights = torch.load(self.out / "model_final.pth", weights_only=True)["model"]
        assert all(np.isfinite(value.numpy()).all() for value in weights.values())

    def check_nothing_is_half_written(self):
        assert not list(self.folder.rglob("*.tmp"))
