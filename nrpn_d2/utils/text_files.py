"""Text files from outside, as bytes, JSON or YAML: nothing in them is run, and all have a limit."""

import json
import os
from typing import Any, NoReturn

import yaml

MAX_JSON_BYTES = 2**30  # COCO's own train2017 has half of it


def read_bytes(path: str, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes``.

    Raises:
        ValueError: naming ``path`` and the reason; no remedy.
    """
    try:
        if not os.path.isfile(path):
            raise OSError("not a regular file" if os.path.lexists(path) else "no such file")
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    if len(content) > max_bytes:
        raise ValueError(f"{path}: larger than {max_bytes} bytes")
    return content


def load_json(path: str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file; NaN and infinity, which are not JSON, are refused.

    Raises:
        ValueError: as :func:`read_bytes`, or for anything but JSON in UTF-8.
    """
    content = read_bytes(path, max_bytes)
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: invalid JSON ({_first_line(error)})") from None


def load_yaml(path: str) -> Any:
    """Read a YAML file of plain values; aliases are refused, since a few can stand for gigabytes.

    Raises:
        ValueError: as :func:`read_bytes`, or for anything but such YAML in UTF-8.
    """
    content = read_bytes(path, max_bytes=2**20)
    try:
        return yaml.load(content.decode("utf-8-sig"), _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: invalid YAML ({_first_line(error)})") from None


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that a section has twice, of which YAML would keep the last silently."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node, lines = super().compose_mapping_node(anchor), {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                name = key.tag, key.value  # 1 and "1" are two keys
                if name in lines:
                    problem = f"{key.value!r} is on line {lines[name]}, too; write it once"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                lines[name] = key.start_mark.line + 1
        return node


class _PlainLoader(StrictLoader):
    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"an alias on line {mark.line + 1}; write its value there")
        return super().compose_node(parent, index)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _first_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem}, line {error.problem_mark.line + 1}"
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
