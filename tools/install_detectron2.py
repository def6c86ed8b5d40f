"""Installs Detectron2 into the running Python, unless `import detectron2` works there already.

    python tools/install_detectron2.py               # v0.5 from the package index, no compiler
    python tools/install_detectron2.py --source git  # the official repository, builds its C++

The first takes the source package `detectron2-cdo` 0.5, whose Python code is Detectron2's v0.5,
mends what today's libraries broke (detectron2_repairs.py), and leaves out the compiled extension:
Faster R-CNN takes NMS and RoI pooling from torchvision.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import List, Optional

import run_uv
from detectron2_repairs import REPAIRS

PACKAGE = "detectron2-cdo==0.5"
SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"
REPOSITORY = "git+https://github.com/facebookresearch/detectron2.git"
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"

# Replaces the package's own setup.py, which wants C++ sources that are not there and pins
# iopath<0.1.10 and black==21.4b2, from 2021. OpenCV is left to the user, as Detectron2 does.
SETUP_PY = '''
from setuptools import setup, find_packages

projects = {
    "detectron2.projects.point_rend": "projects/PointRend/point_rend",
    "detectron2.projects.deeplab": "projects/DeepLab/deeplab",
    "detectron2.projects.panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}
setup(
    name="detectron2",
    version="0.5",
    description="Detectron2 v0.5 for current torch, without the compiled extension (nrpn_d2)",
    url="https://github.com/facebookresearch/detectron2",
    author="FAIR",
    license="Apache-2.0",
    packages=find_packages(include=["detectron2", "detectron2.*"]) + list(projects),
    package_dir=projects,
    package_data={"detectron2.model_zoo": ["configs/**/*"]},
    python_requires=">=3.10",
    install_requires=[
        "Pillow>=7.1", "matplotlib", "pycocotools>=2.0.2", "termcolor>=1.1", "yacs>=0.1.6",
        "tabulate", "cloudpickle", "tqdm>4.29.0", "tensorboard", "fvcore>=0.1.5,<0.1.6",
        "iopath>=0.1.7", "omegaconf>=2.1,<2.4", "hydra-core>=1.1", "black",
    ],
)
'''


def installed() -> Optional[str]:
    """
    Returns:
        version and place of the Detectron2 that can be imported, or None
    """
    code = "import detectron2 as d; print(d.__version__, 'from', d.__path__[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def run(command, **kwargs) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


def sources(settings: run_uv.Settings) -> List[List[str]]:
    """
    Returns:
        unearth's options for each place to look into, one after the other: given any place,
        unearth leaves out its default index
    """
    places = [f"--find-link={link}" for link in settings.get("find-links", [])]
    if settings.get("no-index", ["false"]) == ["false"]:
        default = [f"--index-url={url}" for url in settings.get("index-url", [])]
        places += default or [""]
        places += [f"--index-url={url}" for url in settings.get("extra-index-url", [])]
    hosts = [f"--trusted-host={host}" for host in settings.get("trusted-host", [])]
    return [([place] if place else []) + hosts for place in places]


def fetch(folder: Path) -> Path:
    """Downloads the source package, without building it, from the user's own package index."""
    pip, uv = run_uv.pip_settings(), run_uv.uv_settings()
    environment = {**os.environ, **run_uv.uv_environment(pip, uv)}
    errors = []
    for options in sources({**pip, **uv}):
        command = [sys.executable, "-m", "unearth", "--no-binary", "-d", str(folder), *options]
        done = subprocess.run(command + [PACKAGE], capture_output=True, text=True, env=environment)
        archives = list(folder.glob("*.tar.gz"))
        if done.returncode == 0 and archives:
            return archives[0]
        errors.append(f"{' '.join(options) or 'default index'}: {done.stderr.strip()}")
    raise SystemExit(f"{PACKAGE} could not be fetched from\n" + "\n".join(errors))


def verify(archive: Path, sha256: str) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != sha256:
        raise SystemExit(f"{archive.name} has the SHA-256 {digest}, expected {sha256}: not used")


def build_wheel(archive: Path, folder: Path) -> Path:
    """Unpacks the source package in `folder`, repairs it and builds a wheel from it."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "source", filter="data")
    (root,) = (folder / "source").iterdir()
    for repair in REPAIRS:
        repair(root)
    (root / "setup.py").write_text(SETUP_PY)
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    run([sys.executable, "-c", code], cwd=root)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_wheel(wheel: Path, site_packages: Path) -> None:
    """Unpacks the wheel beside its destination and moves it there; the package itself comes
    last, so that at no moment a part of it can be imported."""
    with tempfile.TemporaryDirectory(prefix="detectron2-", dir=site_packages) as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        for entry in sorted(Path(folder).iterdir(), key=lambda path: path.name == "detectron2"):
            entry.rename(site_packages / entry.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", choices=("pypi", "git"), default="pypi")
    arguments = parser.parse_args()
    found = installed()
    if found:
        print(f"Detectron2 {found}: nothing to do")
        return
    if arguments.source == "git":
        command = ["pip", "install", "--no-deps", "--no-build-isolation", f"{REPOSITORY}@{COMMIT}"]
        raise SystemExit(run_uv.main(command))
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        folder = Path(name)
        archive = fetch(folder)
        verify(archive, SHA256)
        install_wheel(build_wheel(archive, folder), Path(sysconfig.get_path("purelib")))
    print(f"Detectron2 {installed()}")


if __name__ == "__main__":
    main()
