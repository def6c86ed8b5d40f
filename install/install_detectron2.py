"""Installs Detectron2 into the running Python, unless `import detectron2` works there already.

    python install/install_detectron2.py               # v0.5 from the package index, no compiler
    python install/install_detectron2.py --source git  # the official repository, builds its C++

The first takes the source package `detectron2-cdo` 0.5, whose Python code is Detectron2's v0.5,
mends what today's libraries broke (detectron2_repairs.py), and leaves out the compiled extension:
Faster R-CNN takes NMS and RoI pooling from torchvision.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import run_uv
from detectron2_repairs import REPAIRS

PACKAGE = "detectron2-cdo==0.5"
SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"
REPOSITORY = "https://github.com/facebookresearch/detectron2.git"
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"

# Replaces the package's own setup.py, which wants C++ sources that are not there and pins
# iopath<0.1.10 and black==21.4b2, from 2021. OpenCV is left to the user, as Detectron2 does.
SETUP_PY = """
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
"""


def find_detectron2() -> tuple[bool, str]:
    """
    Returns:
        whether `import detectron2` works, and its version and place, or why it does not
    """
    code = "import detectron2 as d; print('Detectron2', d.__version__, 'from', d.__path__[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.returncode == 0, (done.stdout or done.stderr).strip()


def run(command: list[str], **kwargs) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def sources(settings: run_uv.Settings) -> list[list[str]]:
    """
    Returns:
        unearth's options for each place to look into, one after the other: given any place,
        unearth leaves out its default index
    """
    places = [f"--find-link={link}" for link in settings.get("find-links", [])]
    if not run_uv.is_on(settings, "no-index"):
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
        if done.returncode == 0:
            return Path(json.loads(done.stdout)["local_path"])
        errors.append(f"{' '.join(options) or 'default index'}: {done.stderr.strip()}")
    raise SystemExit(f"{PACKAGE} could not be fetched.\n" + "\n".join(errors))


def verify(archive: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{archive.name} has the SHA-256 {digest}, expected {SHA256}: not used.")


def build_wheel(archive: Path, folder: Path, repairs=REPAIRS) -> Path:
    """Unpacks the source package in `folder`, repairs it and builds a wheel from it."""
    shutil.unpack_archive(archive, folder / "source")
    (root,) = (folder / "source").iterdir()
    for repair in repairs:
        repair(root)
    (root / "setup.py").write_text(SETUP_PY)
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    run([sys.executable, "-c", code], cwd=root)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_from_git(folder: Path) -> Path:
    """Builds a wheel, with the compiled extension, from the official repository."""
    requirement = f"git+{REPOSITORY}@{COMMIT}"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run([*command, "--wheel-dir", str(folder), requirement])
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_wheel(wheel: Path, site_packages: Path) -> None:
    """Unpacks the wheel beside its destination, then moves it there: first what pip knows it by,
    last the package, so that no part of it can ever be imported alone."""
    with tempfile.TemporaryDirectory(prefix=".detectron2-", dir=site_packages) as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        for entry in sorted(Path(folder).iterdir(), key=lambda path: path.name == "detectron2"):
            target = site_packages / entry.name
            if target.suffix == ".dist-info" and target.exists():
                shutil.rmtree(target)  # of a run that was interrupted here
            entry.rename(target)


def missing_requirements() -> list[str]:
    """What the installed Detectron2 needs always (no extra, no marker) and this Python lacks."""
    code = (
        "import re, importlib.metadata as m\n"
        "for need in m.requires('detectron2') or []:\n"
        "    name = re.match(r'[\\w.-]+', need)[0]\n"
        "    if ';' not in need and not any(m.distributions(name=name)): print(need)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.split("\n")[:-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", choices=("pypi", "git"), default="pypi")
    source = parser.parse_args().source
    found, where = find_detectron2()
    if found:
        print(f"{where}: nothing to do")
        return
    site_packages = Path(sysconfig.get_path("purelib" if source == "pypi" else "platlib"))
    if (site_packages / "detectron2").exists():
        raise SystemExit(
            f"{where}\n{site_packages / 'detectron2'} is there, but cannot be imported. "
            "Remove it (pip uninstall detectron2), then run this again."
        )
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        folder = Path(name)
        if source == "git":
            wheel = build_from_git(folder)
        else:
            archive = fetch(folder)
            verify(archive)
            wheel = build_wheel(archive, folder)
        install_wheel(wheel, site_packages)
    missing = missing_requirements()
    if missing:
        raise SystemExit(f"Detectron2 is installed and still needs: {', '.join(missing)}")
    print(find_detectron2()[1])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C
    main()
