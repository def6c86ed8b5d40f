"""Run a tool's ``main``: bad input ends in a short message, a bug in a traceback."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

from fvcore.common import registry

from ..utils.safe_load import CheckpointError
from .train_loop import NonFiniteLoss

DEBUG = "NRPN_D2_DEBUG"  # environment variable: bad input, too, ends in a traceback
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def run(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """Return ``main(args)``.

    Raises:
        SystemExit: with a message for the user and exit code 1, for bad input.
    """
    try:
        return main(args)
    except Exception as error:
        if os.environ.get(DEBUG) or not is_bad_input(error):
            raise
        sys.exit(f"error: {message_of(error)}")


def is_bad_input(error: Exception) -> bool:
    """Return whether ``error`` is what this package says of bad input, and not a bug.

    Of errors that can be anything, such as ValueError, only those count that were raised by this
    package or, for a misspelt name, by a registry: not those of torch or of a user's own code.
    """
    if isinstance(error, (OSError, CheckpointError, NonFiniteLoss)):
        return True
    of_worker = re.findall(r'^ *File "(.+)", line \d+', str(error), re.MULTILINE)
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    file = of_worker[-1] if of_worker else frame.f_code.co_filename
    if isinstance(error, KeyError):
        return file == registry.__file__
    return isinstance(error, ValueError) and file.startswith(_PACKAGE)


def message_of(error: Exception) -> str:
    """Return the message of ``error``, without the traceback that a data loader's process adds."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Original Traceback" in text:
        text = re.split(r"^[\w.]+: ", text, flags=re.MULTILINE)[-1]
    return text.strip() or type(error).__name__
