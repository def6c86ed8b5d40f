"""One run at a time in an OUTPUT_DIR."""

import errno
import fcntl
import logging
import os
import socket
from typing import IO

from detectron2.utils import comm

_LOCK = ".lock"
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
# (process, path) -> file. A POSIX lock belongs to a process: it ends with it, however that ends,
# and processes that it forks, such as those of a data loader, do not hold it
_held: dict[tuple[int, str], IO] = {}


def claim(folder: str) -> None:
    """Make ``folder``, and keep other runs out of it until this process ends or releases it.

    To be called by all processes of a run; again by the same process, it does nothing.

    Raises:
        ValueError: in all processes, naming the host and the process that holds the folder.
    """
    holder = comm.all_gather(_claim(folder) if comm.is_main_process() else "")[0]
    if holder:
        message = f"OUTPUT_DIR {folder} is in use by another run ({holder}); wait for its end"
        raise ValueError(f"{message}, stop it, or choose another OUTPUT_DIR")


def release(folder: str) -> None:
    """Let other runs into ``folder``."""
    file = _held.pop(_key(folder), None)
    if file is not None:
        file.close()


def _key(folder: str) -> tuple[int, str]:
    return os.getpid(), os.path.realpath(folder)


def _claim(folder: str) -> str:
    """Return who holds ``folder``, or "" once this process does."""
    if _key(folder) in _held:
        return ""
    os.makedirs(folder, exist_ok=True)
    file = open(os.path.join(folder, _LOCK), "a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            file.seek(0)
            return file.read().strip() or "unknown"
        message = "%s is on a file system without locks (%s): nothing keeps a second run out of it"
        logging.getLogger(__name__).warning(message, folder, error.strerror)
    file.truncate(0)
    file.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
    file.flush()
    _held[_key(folder)] = file
    return ""
