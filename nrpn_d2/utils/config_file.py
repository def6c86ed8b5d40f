"""Config files: found by name, and read without running what is in them; errors name the file."""

from pathlib import Path

import yaml
from detectron2.config import CfgNode

_PACKAGE = Path(__file__).parents[1]


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
        cfg.merge_from_file(path, allow_unsafe=False)
    except RecursionError:
        raise ValueError(f"{path}: its _BASE_ leads back to itself; correct _BASE_") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); is it a config file?") from None
    except yaml.YAMLError as error:
        message = "invalid YAML (tabs and Python objects are refused, too)"
        raise ValueError(f"{path}: {message}:\n{error}") from None
    except (TypeError, AttributeError):
        message = "it must consist of sections and lines KEY: VALUE, none of them empty"
        raise ValueError(f"{path}: {message}") from None
    except (AssertionError, KeyError, OSError, ValueError) as error:
        reason = str(error.args[0] if isinstance(error, KeyError) else error).rstrip("!")
        raise ValueError(f"{path}: {reason}; correct the file or its name") from None
