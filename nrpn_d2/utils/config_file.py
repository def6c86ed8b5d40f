"""Config files: read without running what is in them; errors name the file."""

import yaml
from detectron2.config import CfgNode


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
