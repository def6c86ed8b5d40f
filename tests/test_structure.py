"""The layout's rules: imports run one way, files are short, command lines are thin."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom to the top; a room imports itself and the rooms before it
ROOMS = (
    "config",
    "config_checks",
    "utils",
    "modeling",
    "data",
    "checkpoint",
    "evaluation",
    "engine",
    "deploy",
)
PACKAGE = sorted((ROOT / "nrpn_d2").rglob("*.py"))
COMMANDS = sorted([*(ROOT / "tools").glob("*.py"), ROOT / "train_net.py"])
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
OTHERS = [path for room in ("tests", "install", "docs") for path in (ROOT / room).rglob("*.py")]
SCRIPTS = [path for path in COMMANDS + BENCHMARKS if "__main__" in path.read_text()]


def name(path):
    return str(path.relative_to(ROOT))


def imported_modules(path):
    """Full names of all that a file imports, also within functions."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms_imported(path):
    """The second part of each name below nrpn_d2: a room, or what only the package itself has."""
    names = (module.split(".") for module in imported_modules(path))
    return {parts[1] if len(parts) > 1 else "" for parts in names if parts[0] == "nrpn_d2"}


@pytest.mark.parametrize(
    "path", [p for p in PACKAGE if p != ROOT / "nrpn_d2/__init__.py"], ids=name
)
def test_imports_between_rooms_run_one_way(path):
    room = path.relative_to(ROOT / "nrpn_d2").parts[0].removesuffix(".py")
    assert rooms_imported(path) <= set(ROOMS[: ROOMS.index(room) + 1])


@pytest.mark.parametrize("path", COMMANDS + BENCHMARKS, ids=name)
def test_command_lines_import_no_other(path):
    imported = {module.split(".")[0] for module in imported_modules(path)}
    assert not imported & {other.stem for other in SCRIPTS}
    assert "sys.path" not in path.read_text()


@pytest.mark.parametrize("path", PACKAGE + COMMANDS + BENCHMARKS + sorted(OTHERS), ids=name)
def test_no_file_is_longer_than_300_lines(path):
    assert len(path.read_text().splitlines()) <= 300


def test_the_rules_see_every_kind_of_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "nrpn_d2" / "data" / "voc" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from ...engine.trainer import Trainer\nfrom ... import deploy\nfrom ..loader import x\n"
        "def f():\n    import nrpn_d2.evaluation.recall\n    import nrpn_d2\n"
        "from . import xml\nfrom nrpn_d2 import add_nrpn_config\nimport torch\n"
    )
    expected = {"engine", "deploy", "data", "evaluation", "", "add_nrpn_config"}
    assert rooms_imported(path) == expected
