"""Checkpoint files that would run code, are broken, or are not checkpoints."""

import pickle
import re

import numpy as np
import pytest
import torch
from hostile_files import TouchesAFile

from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer, read_checkpoint
from nrpn_d2.utils.safe_load import CheckpointError, load_file


class RunsPython:
    """As TouchesAFile, by Python code."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return exec, (f"open({self.path!r}, 'w')",)


def pickled(protocol):
    def write(data, path):
        path.write_bytes(pickle.dumps(data, protocol))

    return write


def torch_saved(protocol, is_zip=True):
    def write(data, path):
        torch.save(data, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)

    return write


WAYS = {f"{p}.pkl": pickled(p) for p in range(6)}
WAYS.update({f"raw{p}.pth": pickled(p) for p in range(6)})
WAYS.update({f"zip{p}.pth": torch_saved(p) for p in (2, 4, 5)})
WAYS.update({f"old{p}.pth": torch_saved(p, is_zip=False) for p in (2, 4)})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:.*torch.jit.script")
@pytest.mark.parametrize(
    "attack, wanted",
    [(TouchesAFile, r"(posix|nt)\.system"), (RunsPython, r"(__builtin__|builtins)\.exec")],
)
def test_malicious_pickle(way, attack, wanted, tmp_path):
    weight = np.zeros(3, np.float32) if ".pkl" in way or "raw" in way else torch.zeros(3)
    path, touched = tmp_path / way, tmp_path / "touched"
    WAYS[way]({"model": {"a": weight}, "author": attack(touched)}, path)
    message = f"^{re.escape(str(path))} is refused: it asks for {wanted},"
    with pytest.raises(CheckpointError, match=message):
        load_file(str(path))
    assert not touched.exists()
    # the file is a real attack: an unpickler that does not refuse runs it
    if way.endswith(".pkl"):
        pickle.loads(path.read_bytes())
        assert touched.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_harmless_pickles_are_read(protocol, tmp_path):
    data = {
        "model": {
            "contiguous": np.arange(6, dtype=np.float32).reshape(2, 3),
            "by columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "empty": np.zeros((0, 4), np.int64),
        },
        "others": [1, (2.5, {3}), frozenset("a"), b"", b"\xff", None, np.float32(2), "text"],
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(data, protocol))
    loaded = load_file(str(path))
    for name, array in data["model"].items():
        assert loaded["model"][name].dtype == array.dtype
        assert np.array_equal(loaded["model"][name], array)
    assert loaded["others"] == data["others"]


def test_python_2_pickle(tmp_path):
    """As most of the model zoo: numpy's old module name, and bytes for strings."""
    pickled_there = (
        b"\x80\x02}q\x00U\x05modelq\x01}q\x02U\x01wq\x03cnumpy.core.multiarray\n_reconstruct\n"
        b"q\x04cnumpy\nndarray\nq\x05K\x00\x85q\x06U\x01bq\x07\x87q\x08Rq\t(K\x01K\x02\x85q\n"
        b"cnumpy\ndtype\nq\x0bU\x02f4q\x0cK\x00K\x01\x87q\rRq\x0e(K\x03U\x01<q\x0fNNNJ\xff\xff"
        b"\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89U\x08\x00\x00\x80?\x00\x00\x00@q\x11tq\x12bss."
    )
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickled_there)
    assert load_file(str(path))["model"]["w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_truncated_file(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"model": {"a": torch.randn(1000)}}, path)
    else:
        path.write_bytes(pickle.dumps({"model": {"a": np.random.rand(1000)}}))
    content = path.read_bytes()
    read_checkpoint(str(path))
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        for mmap in (False, True):
            with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} cannot be read"):
                read_checkpoint(str(path), mmap)


@pytest.mark.parametrize(
    "data",
    [[1, 2], {}, {"model": {}}, {"model": {"a": "text"}}, {"epoch": 3}, {"model": None}],
)
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_not_a_checkpoint(data, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(pickle.dumps(data)) if suffix == ".pkl" else torch.save(data, path)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} .*not a checkpoint"):
        read_checkpoint(str(path))


def test_wrong_file(tmp_path):
    path = tmp_path / "model.pth"
    path.write_text("<html>404 Not Found</html>")
    checkpointer = NRPNCheckpointer(torch.nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        checkpointer.load(str(path))
    checkpointer.load("")  # it can be used again
    torch.save(torch.nn.Linear(2, 2), path)  # a whole module, not its weights
    with pytest.raises(CheckpointError, match="asks for torch.nn.modules.linear.Linear"):
        read_checkpoint(str(path))
