"""docs/configuration.md is what config.py says, and no key is without a text."""

import document_config
import pytest
from detectron2.config import CfgNode, get_cfg

from nrpn_d2 import add_nrpn_config

SOURCE = '''
def add(cfg):
    """Docstring."""
    # ---- First section
    cfg.A = CN()
    # What x is,
    # in two lines
    cfg.A.X = 1  # pixels
    cfg.A.Y = [1, 2]  # a | b

    # ---- Second section
    # Alone
    cfg.A.Z = ""
'''


def test_comments_become_a_table():
    assert list(document_config.read_keys(SOURCE)) == [
        ("First section", "A.X", "1", "What x is, in two lines pixels"),
        ("First section", "A.Y", "[1, 2]", "a | b"),
        ("Second section", "A.Z", '""', "Alone"),
    ]
    assert "| `A.Y` | `[1, 2]` | a \\| b |" in document_config.page(SOURCE)


def test_a_key_without_a_text_is_an_error():
    with pytest.raises(ValueError, match="A.W"):
        document_config.page(SOURCE + "    cfg.A.W = 2\n")


def keys_of(cfg, prefix=""):
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_page_is_up_to_date_and_complete():
    source = document_config.SOURCE.read_text()
    assert document_config.PAGE.read_text() == document_config.page(source), (
        "run python docs/document_config.py"
    )
    ours = get_cfg()
    add_nrpn_config(ours)
    added = set(keys_of(ours)) - set(keys_of(get_cfg()))
    assert {key for _, key, _, _ in document_config.read_keys(source)} == added
