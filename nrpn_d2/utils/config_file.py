"""Config files: found by name, and read without running what is in them; errors name the file."""

import os
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from .text_files import StrictLoader

_PACKAGE = Path(__file__).parents[1]
_MAX_KEYS = 5000
_MAX_DEPTH = 20


def get_config_file(name: str) -> str:
    """Return the path of one of this project's configs, as ``model_zoo.get_config_file`` does.

    Args:
        name: of a file in configs/, such as "voc_nrpn_vgg16.yaml".

    Raises:
        ValueError: there is no such config; names those there are.
    """
    # In a wheel they are in the package, in a checkout beside it
    folder = _PACKAGE / "configs"
    if not folder.is_dir():
        folder = _PACKAGE.parent / "configs"
    path = folder / name
    if not path.is_file():
        files = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*.*"))
        raise ValueError(f"there is no config {name!r}; it must be one of {', '.join(files)}")
    return str(path)


def merge_config_file(cfg: CfgNode, path: str) -> None:
    """Merge a file as ``cfg.merge_from_file`` does, but refuse Python code in it.

    Raises:
        ValueError: naming the file, if it is missing, invalid YAML, has keys that ``cfg`` lacks, or
            values of another type.
    """
    try:
        _refuse_repeated_keys(path)
        return cfg.merge_from_file(path, allow_unsafe=False)
    except RecursionError:
        reason = "its _BASE_ leads back to itself, or it is nested too deeply; correct that"
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text ({error}); is it a config file?"
    except yaml.YAMLError as error:
        reason = f"invalid YAML (tabs and Python objects are refused, too):\n{error}"
    except (TypeError, AttributeError):
        reason = (
            "it must consist of sections and lines KEY: VALUE, none empty, with a file as _BASE_"
        )
    except (AssertionError, KeyError, OSError, ValueError) as error:
        message = str(error.args[0] if isinstance(error, KeyError) else error).rstrip("!")
        reason = f"{message}; correct the file or its name"
    raise ValueError(f"{path}: {reason}")


def _refuse_repeated_keys(path: str) -> None:
    if not PathManager.isfile(path):
        return  # merging it says so
    with PathManager.open(path) as f:
        bases = yaml.load(f, StrictLoader).get("_BASE_", [])
    for base in [bases] if isinstance(bases, str) else bases:
        # Where Detectron2 looks for it: from the file's own folder
        _refuse_repeated_keys(os.path.join(os.path.dirname(path), os.path.expanduser(base)))


def flat_config(config: Any) -> dict[str, Any]:
    """Return KEY.KEY -> value of nested dicts; only so many, for aliases can stand for millions."""
    flat, waiting = {}, [((), config)]
    for _ in range(_MAX_KEYS):
        if not waiting:
            break
        path, value = waiting.pop()
        if isinstance(value, dict):
            if len(path) < _MAX_DEPTH and len(waiting) < _MAX_KEYS:
                waiting += [((*path, str(key)), item) for key, item in value.items()][::-1]
        elif path:
            flat[".".join(path)] = value if _is_small(value) else "..."
    return flat


def _is_small(value: Any) -> bool:
    """Return whether a list has, with all lists in it, few items."""
    waiting = [value]
    for _ in range(_MAX_KEYS):
        if not waiting:
            return True
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item[:_MAX_KEYS]
    return False
