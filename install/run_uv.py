"""Runs uv under the user's own index configuration: python install/run_uv.py pip install ...

uv reads neither pip.conf nor PIP_*, so what they say is handed to uv as UV_* variables. What the
user told uv itself (UV_* variables, uv.toml) wins. Needs nothing but Python, pip and uv.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

# pip's option -> what says the same to uv: environment variables, the first is the one we set
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("ALL_PROXY", "HTTPS_PROXY", "https_proxy", "all_proxy"),
    "timeout": ("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "HTTP_TIMEOUT"),
}

Settings = dict[str, list[str]]


def parse_pip_config(listing: str) -> Settings:
    """
    Args:
        listing: the output of ``pip config list``, lines such as ``global.index-url='URL'``

    Returns:
        the values of each option in `VARIABLES`, and of ``no-index``
    """
    scopes = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        scope, _, option = key.rpartition(".")
        option = "timeout" if option == "default-timeout" else option
        if option in VARIABLES or option == "no-index":
            scopes.setdefault(scope, {})[option] = ast.literal_eval(value).split()
    settings: Settings = {}
    for scope in ("global", "install", ":env:"):  # pip's own precedence, weakest first
        settings.update(scopes.get(scope, {}))
    return settings


def pip_settings() -> Settings:
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    settings = parse_pip_config(done.stdout)
    if "find-links" in settings:  # pip overlooks a folder that is not there, uv stops at it
        settings["find-links"] = list(filter(is_reachable, settings["find-links"]))
    return settings


def is_reachable(link: str) -> bool:
    """False for a local folder or file that does not exist."""
    remote = "://" in link and not link.startswith("file:")
    return remote or Path(unquote(link.replace("file://", "", 1))).expanduser().exists()


def parse_uv_toml(content: dict) -> Settings:
    """
    Args:
        content: a parsed uv.toml
    """
    settings: Settings = {}
    for table in (content.get("pip", {}), content):
        for option in ("index-url", "extra-index-url", "find-links"):
            if option in table:
                value = table[option]
                settings[option] = [value] if isinstance(value, str) else list(value)
    for index in content.get("index", []):
        option = "index-url" if index.get("default") else "extra-index-url"
        settings.setdefault(option, []).append(index["url"])
    if content.get("no-index") or content.get("pip", {}).get("no-index"):
        settings["no-index"] = ["true"]
    return settings


def uv_settings() -> Settings:
    """What the user's uv.toml files and UV_* variables say, in pip's names."""
    try:
        import tomllib
    except ImportError:  # Python 3.10; before anything is installed only pip has a reader
        from pip._vendor import tomli as tomllib
    config = Path(os.environ.get("XDG_CONFIG_HOME", "~/.config")).expanduser()
    files = [Path("/etc/uv/uv.toml"), config / "uv" / "uv.toml"]
    if "UV_CONFIG_FILE" in os.environ:
        files = [Path(os.environ["UV_CONFIG_FILE"])]
    settings: Settings = {}
    for file in files:
        if file.is_file() and "UV_NO_CONFIG" not in os.environ:
            settings.update(parse_uv_toml(tomllib.loads(file.read_text())))
    for option, variables in VARIABLES.items():
        values = [os.environ[name] for name in variables if name in os.environ]
        if values:  # an empty one counts: it switches pip's off
            words = " ".join(values).replace(",", " ").split()
            # UV_INDEX may name its indexes: NAME=URL
            settings[option] = [re.sub(r"^[\w.-]+=", "", word) for word in words]
    return settings


def uv_environment(pip: Settings, uv: Settings) -> dict[str, str]:
    """
    Returns:
        the variables to add for uv: what pip's configuration says and uv's does not
    """
    added = {}
    for option, variables in VARIABLES.items():
        if pip.get(option) and option not in uv:
            added[variables[0]] = ("," if option == "find-links" else " ").join(pip[option])
    # As pip does, take each package from whichever index has it. uv's default stops at the first
    # index that knows the name, and so fails where a second, partial index lacks the pinned
    # version. The danger it guards against, a stranger's package of the same name, is met by
    # the hashes in the lock file.
    if "UV_INDEX_STRATEGY" not in os.environ:
        added["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return added


def is_on(settings: Settings, option: str) -> bool:
    """As pip reads a switch: on unless it says no."""
    return settings.get(option, ["0"])[0].lower() not in ("0", "false", "no", "off", "n", "f")


def main(arguments: list[str]) -> int:
    pip, uv = pip_settings(), uv_settings()
    if is_on(pip, "no-index") and "index-url" not in uv:
        arguments = arguments + ["--no-index"]
    command = [str(Path(sys.executable).with_name("uv")), *arguments]
    # into this environment, not into one that happens to be activated
    environment = {**os.environ, **uv_environment(pip, uv), "VIRTUAL_ENV": sys.prefix}
    return subprocess.call(command, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
