"""Reading checkpoints and proposal files without running what is in them.

A pickle is a program. Files that torch saved are read with ``weights_only``; other pickles (.pkl,
as in Detectron2's model zoo) by an unpickler that knows numpy arrays and plain containers, no more.
"""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from detectron2.structures import BoxMode

try:
    from numpy._core import multiarray, numeric
except ImportError:  # numpy 1
    from numpy.core import multiarray, numeric


class CheckpointError(RuntimeError):
    """A file of weights or proposals that cannot be read, or that is refused."""


def load_file(path: str, mmap: bool = False) -> Any:
    """Return what was saved in a file, on the CPU, without running what is in it.

    Args:
        path: a local file; ".pkl" is a pickle, anything else was saved by torch.
        mmap: leave the tensors on the disk until they are used, where the format allows.

    Raises:
        CheckpointError: naming ``path`` and, if the file asks for an object that could run code,
            that object.
    """
    try:
        if path.endswith(".pkl"):
            with open(path, "rb") as f:
                return _ArraysOnly(f, encoding="latin1").load()
        mmap = mmap and zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as e:  # whatever unpicklers and zip readers raise on a broken file
        wanted = str(e) if isinstance(e, _Refused) else _forbidden_object(path, str(e))
        if wanted is not None:
            raise CheckpointError(
                f"{path} is refused: it asks for {wanted}, and weights or proposals need nothing "
                "but arrays and plain containers. Loading it could run code; nothing of it was run"
            ) from e
        message = f"{path} cannot be read: it is truncated, or of another kind"
        raise CheckpointError(f"{message} ({type(e).__name__}: {_reason(e)})") from e


def _reason(error: Exception) -> str:
    """Return the first line of a message, without torch's advice to load the file unsafely."""
    _, _, inner = str(error).partition("WeightsUnpickler error:")
    return ((inner or str(error)).strip().splitlines() or ["no details"])[0]


class _Refused(pickle.UnpicklingError):
    """The message is the name of the object that a pickle asked for."""


def _latin1(text: str, encoding: str) -> bytes:
    """Encode as pickles of protocols under 3 ask for: ``_codecs.encode(text, "latin1")``."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


# numpy 1 and 2, Python 2 and 3 name the same things differently
_ADMITTED: dict[str, Callable] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": _latin1,
    "collections.OrderedDict": OrderedDict,
    "detectron2.structures.boxes.BoxMode": BoxMode,
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray._reconstruct"] = multiarray._reconstruct
    _ADMITTED[f"{_core}.multiarray.scalar"] = multiarray.scalar
    _ADMITTED[f"{_core}.numeric._frombuffer"] = numeric._frombuffer
for _builtins in ("builtins", "__builtin__"):
    for _type in (bytes, bytearray, complex, frozenset, set):
        _ADMITTED[f"{_builtins}.{_type.__name__}"] = _type


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable:
        try:
            return _ADMITTED[f"{module}.{name}"]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


class _Inert:
    """Take the place of torch's own objects: accept everything, do nothing."""

    def __init__(self, *args):
        pass

    __setitem__ = __setstate__ = append = extend = __init__


class _Naming(_ArraysOnly):
    """Only find out what a file asks for: torch's message has no name for newer protocols."""

    def find_class(self, module: str, name: str) -> Callable:
        if module.split(".")[0] == "torch":
            return _Inert
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Inert:
        return _Inert()


def _pickle_in(path: str) -> BinaryIO:
    """Open the pickle in a file of torch: a zip archive, or (before torch 1.6) the file itself."""
    if not zipfile.is_zipfile(path):
        return open(path, "rb")
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        return io.BytesIO(archive.read(name))


def _forbidden_object(path: str, message: str) -> str | None:
    """Return what a file that torch refused asked for; None if it is broken in another way."""
    try:
        with _pickle_in(path) as f:
            while True:  # files from before torch 1.6 are several pickles
                _Naming(f, encoding="latin1").load()
    except _Refused as e:
        return str(e)
    except Exception:  # its end, or where it is broken
        named = re.search(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)", message)
        return named and named.group(1)
