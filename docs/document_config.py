#!/usr/bin/env python
"""Write docs/configuration.md from the comments in nrpn_d2/config.py.

python docs/document_config.py          # writes the page
python docs/document_config.py --check  # exit code 1 if the page is not up to date
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, PAGE = ROOT / "nrpn_d2" / "config.py", ROOT / "docs" / "configuration.md"
HEAD = """# Configuration

Every key that `nrpn_d2.add_nrpn_config` adds to Detectron2's, with its default. Keys are set in a
YAML file or on the command line (`KEY VALUE`); Detectron2's own are in its documentation. This page
is written by `python docs/document_config.py` from the comments in `nrpn_d2/config.py`.
"""


def read_keys(source: str) -> Iterator[tuple[str, str, str, str]]:
    """Find the assignments ``cfg.KEY = default`` and the comments that belong to them.

    A comment belongs to a key if it ends its line or stands directly above it; one that starts with
    ``# ----`` opens a section.

    Yields:
        Section, key, default as it is written, text ("" where there is none).
    """
    lines = source.splitlines()
    section, sections = "", {}
    for number, line in enumerate(lines, start=1):
        if line.strip().startswith("# ----"):
            section = line.strip().lstrip("# -")
        sections[number] = section
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign) or isinstance(node.value, ast.Call):
            continue
        key = ast.unparse(node.targets[0])
        if not key.startswith("cfg."):
            continue
        above = []
        for line in reversed(lines[: node.lineno - 1]):
            text = line.strip()
            if not text.startswith("#") or text.startswith("# ----"):
                break
            above.insert(0, text.lstrip("# "))
        behind = lines[node.end_lineno - 1][node.end_col_offset :].strip().lstrip("# ")
        default = ast.get_source_segment(source, node.value)
        yield sections[node.lineno], key[len("cfg.") :], default, " ".join([*above, behind]).strip()


def page(source: str) -> str:
    """Return the Markdown page: a table of keys for each section.

    Raises:
        ValueError: naming the keys that have no comment.
    """
    keys = list(read_keys(source))
    silent = [key for _, key, _, text in keys if not text]
    if silent:
        raise ValueError(f"{SOURCE.name}: no comment explains {', '.join(silent)}; write one")
    parts, previous = [HEAD], None
    for section, key, default, text in keys:
        if section != previous:
            parts.append(f"\n## {section}\n\n| key | default | meaning |\n| --- | --- | --- |\n")
            previous = section
        default, text = default.replace("|", "\\|"), text.replace("|", "\\|")
        parts.append(f"| `{key}` | `{default}` | {text} |\n")
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    args = parser.parse_args()
    text = page(SOURCE.read_text())
    if not args.check:
        PAGE.write_text(text)
    elif not PAGE.is_file() or PAGE.read_text() != text:
        sys.exit(f"{PAGE.name} is out of date: run python docs/document_config.py")


if __name__ == "__main__":
    main()
