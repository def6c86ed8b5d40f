import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("busy machines", settings(), deadline=None)
settings.load_profile("busy machines")


@pytest.fixture(scope="session")
def bccd_root():
    """The real dataset BCCD in VOC layout: $BCCD_ROOT, or beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "BCCD"
    root = Path(os.environ.get("BCCD_ROOT", beside))
    if not root.is_dir():
        pytest.skip(f"the dataset BCCD is not at {root}; set BCCD_ROOT to its folder")
    return str(root)


@pytest.fixture(scope="session")
def process_environment(tmp_path_factory):
    """Of the processes that the tests start."""
    ours = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONDONTWRITEBYTECODE": ""}
    # Several processes import torch: the first compiles it for the others, where this is not done
    ours["PYTHONPYCACHEPREFIX"] = str(tmp_path_factory.mktemp("bytecode"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **ours}
