import logging
import os
import sys
from pathlib import Path

import pytest
from browser import chromium
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import logger as detectron2_logger
from hypothesis import settings
from small_run import Run

from nrpn_d2.data import catalog

settings.register_profile("busy machines", settings(), deadline=None)
settings.load_profile("busy machines")


def beside_the_repository(variable: str, path: str) -> str:
    """Return $variable, or ``path`` in ../shared/data; skip the test where there is nothing."""
    place = Path(__file__).resolve().parents[2] / "shared" / "data" / path
    place = Path(os.environ.get(variable, place))
    if not place.exists():
        pytest.skip(f"no real data at {place}; set {variable}")
    return str(place)


@pytest.fixture(scope="session")
def bccd_root() -> str:
    """The real dataset BCCD (blood cells) in VOC layout."""
    return beside_the_repository("BCCD_ROOT", "BCCD")


@pytest.fixture(scope="session")
def voc_animals_root() -> str:
    """Real photographs: the animals of VOC 2012, in VOC layout."""
    return beside_the_repository("VOC_ANIMALS_ROOT", "VOC2012-animals")


@pytest.fixture(scope="session")
def mobilenet_weights() -> str:
    """torchvision's MobileNetV2 trained on ImageNet."""
    return beside_the_repository("MOBILENET_WEIGHTS", "weights/mobilenet_v2_imagenet.pth")


@pytest.fixture(scope="session")
def process_environment(tmp_path_factory) -> dict[str, str]:
    """The environment of processes that the tests start."""
    ours = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONDONTWRITEBYTECODE": ""}
    # Where torch is not compiled yet, the first process that imports it does it for the others
    ours["PYTHONPYCACHEPREFIX"] = str(tmp_path_factory.mktemp("bytecode"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **ours}


@pytest.fixture(scope="session")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def restored_catalogs(monkeypatch):
    """What a test registers is gone after it, and what it replaces is there again."""
    monkeypatch.setattr(catalog, "_registered", dict(catalog._registered))
    for registry in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(registry, "data", dict(registry.data))


@pytest.fixture(autouse=True)
def restored_loggers():
    """A test's handlers, whose files and streams end with it, are gone after it."""
    yield
    detectron2_logger.setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "nrpn_d2"):
        for handler in logging.getLogger(name).handlers[:]:
            handler.close()
            logging.getLogger(name).removeHandler(handler)


@pytest.fixture
def run(tmp_path, monkeypatch, restored_catalogs):
    """A run that works, in a process that is afterwards as it was before."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path)
    run.patch, run.clean_up = monkeypatch, lambda: None
    yield run
    run.clean_up()
