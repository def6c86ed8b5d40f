"""install/run_uv.py: what pip and uv were told about indexes, and who wins."""

import pytest
import run_uv

LISTING = r"""
:env:.default-timeout='180'
:env:.find-links='/wheels ~/more'
global.cert='/certificates.pem'
global.extra-index-url='\nhttps://one.example/simple\nfile:///two/simple'
global.find-links='/other'
global.index-url='https://global.example/simple'
global.no-color='true'
install.index-url='https://install.example/simple'
freeze.timeout='10'
"""


def test_pip_config_follows_pips_precedence():
    assert run_uv.parse_pip_config(LISTING) == {
        "timeout": ["180"],
        "find-links": ["/wheels", "~/more"],  # the environment beats the file
        "cert": ["/certificates.pem"],
        "extra-index-url": ["https://one.example/simple", "file:///two/simple"],
        "index-url": ["https://install.example/simple"],  # `pip install` beats global
    }


def test_pips_settings_become_uvs_variables():
    pip = run_uv.parse_pip_config(LISTING)
    assert run_uv.uv_environment(pip, {}) == {
        "UV_DEFAULT_INDEX": "https://install.example/simple",
        "UV_INDEX": "https://one.example/simple file:///two/simple",
        "UV_FIND_LINKS": "/wheels,~/more",
        "SSL_CERT_FILE": "/certificates.pem",
        "UV_HTTP_TIMEOUT": "180",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_what_uv_was_told_wins(monkeypatch, tmp_path):
    toml = tmp_path / "uv.toml"
    toml.write_text(
        'find-links = ["/uv-wheels"]\n'
        '[[index]]\nname = "mirror"\nurl = "https://mirror.example"\ndefault = true\n'
    )
    for name in sum(run_uv.VARIABLES.values(), ()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_CONFIG_FILE", str(toml))
    monkeypatch.setenv("UV_INDEX", "extra=https://extra.example")
    monkeypatch.setenv("UV_INDEX_STRATEGY", "first-index")
    uv = run_uv.uv_settings()
    assert uv == {
        "find-links": ["/uv-wheels"],
        "index-url": ["https://mirror.example"],
        "extra-index-url": ["https://extra.example"],
    }
    added = run_uv.uv_environment(run_uv.parse_pip_config(LISTING), uv)
    assert added == {"SSL_CERT_FILE": "/certificates.pem", "UV_HTTP_TIMEOUT": "180"}


def test_an_empty_uv_variable_switches_pips_setting_off(monkeypatch):
    monkeypatch.setenv("UV_FIND_LINKS", "")
    added = run_uv.uv_environment({"find-links": ["/wheels"]}, run_uv.uv_settings())
    assert "UV_FIND_LINKS" not in added


def test_folders_that_do_not_exist_are_overlooked_as_by_pip(tmp_path):
    assert run_uv.is_reachable("https://example.com/wheels")
    assert run_uv.is_reachable(str(tmp_path)) and run_uv.is_reachable(tmp_path.as_uri())
    assert not run_uv.is_reachable(str(tmp_path / "gone"))
    assert not run_uv.is_reachable((tmp_path / "gone").as_uri())


@pytest.mark.parametrize(
    "value, on", [("true", True), ("1", True), ("false", False), ("no", False)]
)
def test_switches_are_read_as_pip_reads_them(value, on):
    assert run_uv.is_on({"no-index": [value]}, "no-index") == on
    assert not run_uv.is_on({}, "no-index")
