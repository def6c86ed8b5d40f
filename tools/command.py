"""What the command lines need before they import the package, so that --help answers at once."""

import argparse
from collections.abc import Callable
from typing import Any


def new_parser(doc: str) -> argparse.ArgumentParser:
    """Return a parser whose --help begins with a module's docstring."""
    return argparse.ArgumentParser(
        description=doc,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable, args: argparse.Namespace, log: bool = False) -> Any:
    """Return ``main(args)``; bad input ends in a short message, and this package logs if asked."""
    from nrpn_d2.engine.command_line import run

    if log:
        from detectron2.utils.logger import setup_logger

        setup_logger(name="nrpn_d2")
    return run(main, args)
