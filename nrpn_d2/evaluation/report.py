"""Tables for the log."""

import math
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate


def format_table(headers: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Format a table; floats have two decimals, nan is n/a."""
    cells = [[_two_decimals(x) if isinstance(x, float) else x for x in row] for row in rows]
    return tabulate(cells, headers=headers, disable_numparse=True, stralign="right")


def _two_decimals(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"
