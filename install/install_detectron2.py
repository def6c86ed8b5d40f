"""Install Detectron2 into the running Python, unless `import detectron2` works there already.

    python install/install_detectron2.py               # v0.5 from the package index, no compiler
    python install/install_detectron2.py --source git  # the official repository, builds its C++

The first takes the source package `detectron2-cdo` 0.5, whose Python code is Detectron2's v0.5,
repairs it for today's libraries (detectron2_repairs.py), and leaves out the compiled extension:
Faster R-CNN takes NMS and RoI pooling from torchvision.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2_repairs import REPAIRS

PACKAGE = "detectron2-cdo==0.5"
SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"
REPOSITORY = "https://github.com/facebookresearch/detectron2.git"
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"

# Replaces the package's own setup.py, which needs C++ sources that it lacks and pins
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
    """Return whether `import detectron2` works, and its version and place or the error."""
    code = "import detectron2 as d; print('Detectron2', d.__version__, 'from', d.__path__[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.returncode == 0, (done.stdout or done.stderr).strip()


def run(command: list[str], **kwargs: Any) -> None:
    """Run a command; end with its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def pip_settings() -> dict[str, list[str]]:
    """Return pip's options for `pip install`, from its configuration files and environment."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = {}
    for scope in ("global", "install", ":env:"):  # pip's own precedence, weakest first
        for option, value in re.findall(rf"^{scope}\.([\w-]+)=(.*)$", listing, re.M):
            settings[option] = ast.literal_eval(value).split()
    return settings


def sources(settings: dict[str, list[str]]) -> list[list[str]]:
    """Return unearth's options for each place to look into, one place after the other.

    Given any place, unearth leaves out its default index.
    """
    places = [f"--find-link={link}" for link in settings.get("find-links", [])]
    if settings.get("no-index", ["0"])[0].lower() in ("0", "false", "no", "off"):
        default = [f"--index-url={url}" for url in settings.get("index-url", [])]
        places += default or [""]
        places += [f"--index-url={url}" for url in settings.get("extra-index-url", [])]
    hosts = [f"--trusted-host={host}" for host in settings.get("trusted-host", [])]
    return [([place] if place else []) + hosts for place in places]


def fetch(folder: Path) -> Path:
    """Download the source package, without building it, from where pip is told to look."""
    settings = pip_settings()
    environment = {**os.environ}
    if "cert" in settings:
        environment.setdefault("SSL_CERT_FILE", settings["cert"][0])
    errors = []
    for options in sources(settings):
        command = [sys.executable, "-m", "unearth", "--no-binary", "-d", str(folder), *options]
        done = subprocess.run(command + [PACKAGE], capture_output=True, text=True, env=environment)
        if done.returncode == 0:
            return Path(json.loads(done.stdout)["local_path"])
        errors.append(f"{' '.join(options) or 'default index'}: {done.stderr.strip()}")
    raise SystemExit(f"{PACKAGE} could not be fetched.\n" + "\n".join(errors))


def verify(archive: Path) -> None:
    """End unless the source package is the expected one, byte for byte."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{archive.name} has SHA-256 {digest} instead of {SHA256}: not used.")


def build_wheel(
    archive: Path, folder: Path, repairs: Sequence[Callable[[Path], None]] = REPAIRS
) -> Path:
    """Unpack the source package in `folder`, repair it and build a wheel from it."""
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
    """Build a wheel, with the compiled extension, from the official repository."""
    requirement = f"git+{REPOSITORY}@{COMMIT}"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run([*command, "--wheel-dir", str(folder), requirement])
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_wheel(wheel: Path, site_packages: Path) -> None:
    """Unpack the wheel beside its destination, then move it there, the package last.

    An interrupted installation thus never leaves a part of the package that can be imported.
    """
    with tempfile.TemporaryDirectory(prefix=".detectron2-", dir=site_packages) as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        for entry in sorted(Path(folder).iterdir(), key=lambda path: path.name == "detectron2"):
            target = site_packages / entry.name
            if target.suffix == ".dist-info" and target.exists():
                shutil.rmtree(target)  # of a run that was interrupted here
            entry.rename(target)


def missing_requirements() -> list[str]:
    """Return the unconditional requirements of the installed Detectron2 that are missing."""
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
            f"{where}\n{site_packages / 'detectron2'} exists but cannot be imported. "
            "Remove it (pip uninstall detectron2), then try again."
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
        raise SystemExit(f"Detectron2's requirements are missing: {', '.join(missing)}")
    print(find_detectron2()[1])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C
    main()
