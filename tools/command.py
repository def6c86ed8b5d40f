"""What the command lines need before they import the package, so that --help answers at once."""

import argparse
from collections.abc import Callable
from typing import Any


def new_parser(doc: str, config: str = "") -> argparse.ArgumentParser:
    """Return a parser whose --help begins with a module's docstring.

    Args:
        config: what --config-file is, which must be given; without it there is no such option.
    """
    parser = argparse.ArgumentParser(
        description=doc,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if config:
        parser.add_argument("--config-file", required=True, help=config)
    return parser


def parse(parser: argparse.ArgumentParser, args: list[str] | None) -> argparse.Namespace:
    """Parse options in any order, and among them the keys and values that override a config's."""
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="override the config's")
    return parser.parse_intermixed_args(args)


def run(main: Callable, args: argparse.Namespace, log: bool = False) -> Any:
    """Return ``main(args)``; bad input ends in a short message, and this package logs if asked."""
    from nrpn_d2.engine.command_line import run

    if log:
        from detectron2.utils.logger import setup_logger

        setup_logger(name="nrpn_d2")
    return run(main, args)
