"""Files that are whole or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO
from uuid import uuid4


@contextmanager
def atomic_open(path: str, mode: str) -> Iterator[IO]:
    """Open ``path`` for writing; it is replaced once all is on the disk, or stays as it was.

    Text is UTF-8. Its folder is made. Several processes may write the same path: the last one wins.
    After an error (a full disk) nothing is left beside it; after a kill
    "<name>.<32 hex digits>.<suffix>.tmp" is.

    Raises:
        OSError: naming ``path``.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    stem, suffix = os.path.splitext(path)
    temporary = f"{stem}.{uuid4().hex}{suffix}.tmp"
    # A file name may have bytes that are no text: they are written as \\udcff
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
    try:
        with open(temporary, mode, **text) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.remove(temporary)
        # torch.save hides a full disk behind an error of its own
        failure = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(failure, OSError):
            raise OSError(failure.errno, failure.strerror, path) from error
        raise
