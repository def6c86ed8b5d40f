"""What was read of the images of a large split, kept for the next run.

The folder is $NRPN_D2_CACHE, by default nrpn_d2 in the user's cache folder; it may be deleted at
any time. NRPN_D2_CACHE= (empty) switches the cache off. Its files are text:

line 1    SHA-256 of the dataset, the classes, the reader's version, and the other lines
others    image file, stamps of its two files <tab> what was read, as JSON
"""

import hashlib
import json
import logging
import os
import pkgutil
import time
from collections.abc import Sequence

import PIL
from detectron2.utils.logger import log_first_n

from ...utils.saving import atomic_open

logger = logging.getLogger(__name__)

_VARIABLE = "NRPN_D2_CACHE"
_READER = ("cache.py", "image.py", "xml.py")
# A file that is written twice within the resolution of the clock of its disk can have the same
# stamp twice: what is this young, in seconds, is not kept.
_RESOLUTION = 2


class VOCCache:
    """Readings (anything that JSON keeps) by signature (:func:`signature`), in one file."""

    def __init__(self, folder: str, root: str, split: str, class_names: Sequence[str]):
        """Takes what the file has; a file that is damaged or of another reader counts as empty."""
        dataset = json.dumps([os.path.realpath(root), split, list(class_names)])
        name = hashlib.sha256(dataset.encode()).hexdigest()[:32]
        self.path = os.path.join(folder, f"voc-{name}.txt")
        self._key = f"{dataset}\n{_reader_version()}\n".encode()
        self._readings = self._load()
        self._is_new = False

    def __contains__(self, signature: str | None) -> bool:
        return signature in self._readings

    def __getitem__(self, signature: str):
        return json.loads(self._readings[signature])

    def __setitem__(self, signature: str, reading) -> None:
        self._readings[signature] = json.dumps(reading, separators=(",", ":"))
        self._is_new = True

    def save(self, signatures: Sequence[str | None]) -> None:
        """Writes the readings of these signatures, as far as there are any and one is new.

        A folder that cannot be written gives one warning.
        """
        if not self._is_new:
            return
        lines = [f"{s}\t{self._readings[s]}\n" for s in signatures if s in self._readings]
        body = "".join(lines).encode()
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with atomic_open(self.path, "wb") as file:
                file.write(self._digest(body) + b"\n" + body)
        except OSError as error:
            message = f"{self.path}: the annotations are not kept for the next run ({error}); set "
            remedy = f"{_VARIABLE} to a folder that can be written, or to nothing for no cache"
            log_first_n(logging.WARNING, message + remedy, name=__name__)

    def _load(self) -> dict[str, str]:
        try:
            with open(self.path, "rb") as file:
                digest, _, body = file.read().partition(b"\n")
        except FileNotFoundError:
            return {}
        except OSError as error:
            logger.warning(f"{self.path}: the cache cannot be read ({error}); reading every file")
            return {}
        if digest != self._digest(body):
            message = "the cache is damaged, or of another version; reading every file"
            logger.warning(f"{self.path}: {message}")
            return {}
        return dict(line.split("\t") for line in body.decode().split("\n")[:-1])

    def _digest(self, body: bytes) -> bytes:
        digest = hashlib.sha256(self._key)
        digest.update(body)
        return digest.hexdigest().encode()


def cache_folder() -> str | None:
    """Where caches are kept; None for no cache."""
    folder = os.environ.get(_VARIABLE)
    if folder is None:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "nrpn_d2")
    return os.path.expanduser(folder) if folder else None


def signature(name: str, paths: Sequence[str]) -> str | None:
    """A text that changes when one of the files changes, appears or vanishes.

    None where that cannot be relied on: a file has just been written.
    """
    stamps: list[int] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            stamps.append(-1 if os.path.lexists(path) else 0)
            continue
        if status.st_ctime > time.time() - _RESOLUTION:
            return None
        stamps += [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return " ".join([name, *map(str, stamps)])


def _reader_version() -> str:
    """Changes with the code that reads, and with the Pillow that it asks for sizes."""
    sources = b"".join(pkgutil.get_data(__package__, name) or b"" for name in _READER)
    return f"{hashlib.sha256(sources).hexdigest()} Pillow {PIL.__version__}"
