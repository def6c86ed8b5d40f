"""The file that keeps what was read, and the signatures of the files that were read."""

import os
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from nrpn_d2.data.voc import cache as voc_cache
from nrpn_d2.data.voc.cache import VOCCache, cache_folder, signature

CLASSES = ["cat", "dog"]


def test_the_version_follows_the_source(monkeypatch):
    now = voc_cache._reader_version()
    get_data = voc_cache.pkgutil.get_data
    monkeypatch.setattr(voc_cache.pkgutil, "get_data", lambda *names: get_data(*names) + b"#")
    assert voc_cache._reader_version() != now


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_file_is_not_believed(data, tmp_path_factory):
    """Whatever becomes of its bytes, a cache has the readings of before, or none at all."""
    folder = tmp_path_factory.mktemp("cache")
    cache = VOCCache(str(folder), "/data", "train", CLASSES)
    cache["a.jpg 1 2 3"] = [[60, 40], [[0, [0.5, 1, 2, 3], 0]], True]
    cache["b.jpg 4 5 6"] = [[6, 4], [], False]
    cache.save(["a.jpg 1 2 3", "b.jpg 4 5 6"])
    good = Path(cache.path).read_bytes()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, len(good)))
    bad = good[:start] + data.draw(st.binary(max_size=4)) + good[end:]
    Path(cache.path).write_bytes(bad)
    again = VOCCache(str(folder), "/data", "train", CLASSES)
    assert ("a.jpg 1 2 3" in again) == ("b.jpg 4 5 6" in again) == (bad == good)


def test_signature(tmp_path, monkeypatch):
    """A missing file, a link that leads nowhere and a file are told apart."""
    monkeypatch.setattr(voc_cache, "_RESOLUTION", -1)  # the file is younger than that
    path, link = str(tmp_path / "a"), str(tmp_path / "link")
    missing = signature("a", [path, link])
    os.symlink(path, link)
    dead = signature("a", [path, link])
    os.remove(link)
    os.symlink(link, link)
    assert signature("a", [path, link]) == dead != missing
    (tmp_path / "a").write_text("x")
    assert signature("a", [path, path]) not in (missing, dead)


def test_every_stamp_counts(monkeypatch):
    """Some disks keep no time of the last change of all, or only whole seconds."""
    signatures = set()
    for size, modified, changed in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)):
        status = SimpleNamespace(
            st_size=size, st_mtime_ns=modified, st_ctime_ns=changed, st_ctime=0
        )
        monkeypatch.setattr(voc_cache.os, "stat", lambda _, status=status: status)
        signatures.add(signature("a.jpg", ["a.jpg"]))
        monkeypatch.undo()
    assert len(signatures) == 4


def test_the_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    for value, folder in (("~/x", "/home/me/x"), ("", None), (None, "/caches/nrpn_d2")):
        if value is None:
            monkeypatch.delenv("NRPN_D2_CACHE")
        else:
            monkeypatch.setenv("NRPN_D2_CACHE", value)
        assert cache_folder() == folder
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == "/home/me/.cache/nrpn_d2"
