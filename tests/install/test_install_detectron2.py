"""Set-up: install/install_detectron2.py, the lock file and the package's requirements."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import install_detectron2 as install
import pytest
from detectron2_repairs import RepairError

ROOT = Path(__file__).resolve().parents[2]


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run_tool(*arguments, **environment):
    command = [sys.executable, str(ROOT / "install/install_detectron2.py"), *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


@pytest.mark.parametrize("source", ["pypi", "git"])
def test_nothing_is_done_where_detectron2_imports(source, tmp_path):
    write(tmp_path, {"detectron2/__init__.py": "__version__ = '9.9'\n"})
    # A proxy that refuses: whoever asks the network fails.
    done = run_tool("--source", source, PYTHONPATH=str(tmp_path), HTTPS_PROXY="http://127.0.0.1:9")
    expected = f"Detectron2 9.9 from {tmp_path / 'detectron2'}: nothing to do\n"
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_a_detectron2_that_does_not_import_is_left_to_its_owner(monkeypatch, tmp_path):
    write(tmp_path, {"detectron2/__init__.py": "import no_such_module\n"})
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py"])
    monkeypatch.setattr(install.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(install, "find_detectron2", lambda: (False, "no_such_module"))
    monkeypatch.setattr(install, "fetch", lambda folder: pytest.fail("asked the network"))
    with pytest.raises(SystemExit, match="(?s)no_such_module.*cannot be imported.*pip uninstall"):
        install.main()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A source package in the layout of detectron2-cdo, with hardly anything in it."""
    folder = tmp_path_factory.mktemp("archive")
    projects = ["PointRend/point_rend", "DeepLab/deeplab", "Panoptic-DeepLab/panoptic_deeplab"]
    files = {f"projects/{project}/__init__.py": "" for project in projects}
    files |= {f"detectron2/{name}__init__.py": "" for name in ("", "projects/", "model_zoo/")}
    files["detectron2/model_zoo/configs/COCO/faster_rcnn.yaml"] = "A: 1\n"
    files["detectron2/model_zoo/configs/common/train.py"] = "train = {}\n"
    files["setup.py"] = "raise RuntimeError('the package own setup.py was run')\n"
    write(folder / "pkg" / "detectron2_cdo-0.5", files)
    return Path(shutil.make_archive(str(folder / "sdist"), "gztar", folder / "pkg"))


@pytest.fixture(scope="module")
def wheel(archive, tmp_path_factory):
    def repair(root):
        (root / "detectron2/__init__.py").write_text("repaired = True\n")

    return install.build_wheel(archive, tmp_path_factory.mktemp("wheel"), repairs=[repair])


def test_the_wheel_is_what_pip_lists_and_uninstalls(wheel, tmp_path):
    assert wheel.name == "detectron2-0.5-py3-none-any.whl"
    install.install_wheel(wheel, tmp_path)
    (found,) = metadata.distributions(path=[str(tmp_path)])
    assert (found.metadata["Name"], found.version) == ("detectron2", "0.5")
    recorded = {str(file) for file in found.files}
    on_disk = {str(p.relative_to(tmp_path)) for p in tmp_path.glob("**/*") if p.is_file()}
    assert recorded == on_disk
    for name in ("projects/point_rend/__init__", "model_zoo/configs/common/train"):
        assert f"detectron2/{name}.py" in recorded
    assert "detectron2/model_zoo/configs/COCO/faster_rcnn.yaml" in recorded
    assert (tmp_path / "detectron2/__init__.py").read_text() == "repaired = True\n"
    assert not [need for need in found.requires if re.match("opencv|torch", need)]


@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupted_installation_leaves_no_package(wheel, tmp_path, monkeypatch, step):
    moves = []
    rename = Path.rename

    def interrupted(self, target):
        moves.append(target)
        if len(moves) == step:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        install.install_wheel(wheel, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"detectron2-0.5.dist-info"}

    monkeypatch.setattr(Path, "rename", rename)
    install.install_wheel(wheel, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"detectron2", "detectron2-0.5.dist-info"}


def test_sources_that_do_not_fit_are_not_installed(archive, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py"])
    monkeypatch.setattr(install.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(install, "find_detectron2", lambda: (False, ""))
    monkeypatch.setattr(install, "fetch", lambda folder: archive)
    with pytest.raises(SystemExit, match="SHA-256.*not used"):
        install.main()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(install, "SHA256", digest)
    with pytest.raises(RepairError):  # the right hash, but nothing to repair in it
        install.main()
    assert not list(tmp_path.iterdir())


def test_pips_settings_follow_its_precedence(tmp_path, monkeypatch):
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://global.example\nfind-links = /other\n"
        "extra-index-url =\n    https://one.example\n    file:///two\n"
        "[install]\nindex-url = https://install.example\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels /more")
    settings = install.pip_settings()
    assert settings["index-url"] == ["https://install.example"]  # `pip install` beats global
    assert settings["extra-index-url"] == ["https://one.example", "file:///two"]
    assert settings["find-links"] == ["/wheels", "/more"]  # the environment beats the file


def test_unearth_is_asked_one_place_at_a_time():
    settings = {"find-links": ["/wheels"], "extra-index-url": ["E"], "trusted-host": ["H"]}
    host = "--trusted-host=H"
    places = [["--find-link=/wheels", host], [host], ["--index-url=E", host]]  # [host]: default
    assert install.sources(settings) == places
    settings["index-url"] = ["I"]
    assert install.sources(settings)[1] == ["--index-url=I", host]
    assert install.sources({**settings, "no-index": ["true"]}) == places[:1]


def test_the_lock_pins_everything_with_hashes_and_names_no_host():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "/simple" not in text
    pins = re.findall(r"^(\S+)==\S+.*(?:\n    --hash=sha256:[0-9a-f]{64} ?\\?)+", text, re.M)
    assert len(pins) == len(re.findall(r"^[^\s#]", text, re.M))
    wanted = re.findall(r"^[\w-]+", (ROOT / "requirements.in").read_text(), re.M)
    assert {name.lower() for name in wanted} <= set(pins)


def test_the_package_requires_no_torch_and_no_flavour_of_opencv():
    text = (ROOT / "pyproject.toml").read_text()
    required = re.search(r"^dependencies = \[(.*?)\]", text, re.M | re.S)[1]
    assert "numpy" in required
    assert not re.findall("torch|opencv|detectron2", required)
