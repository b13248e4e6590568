"""Engines in their cache: found when everything is as it was, and never loaded otherwise."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from derma_common.errors import ResourceError
from derma_common.inference.engines import EngineCache, EngineKey
from derma_common.inference.gate import Verdict
from derma_common.inference.probe import Gpu, Report
from derma_common.shipped import shipped

KEY = EngineKey("a" * 64, "b" * 64, "fp16", 8, "tensorrt 10.3.0", "7.5", "Quadro RTX 6000", "13.0 (580.65)", "sample")
GOOD = Verdict(True, (), {"difference": 0.001})
REPORT = Report("13.0", (Gpu(0, "Quadro RTX 6000", "7.5", 24 << 30),), "tensorrt 10.3.0", "pycuda")
CLASSIFIER = shipped("models") / "efficientnet-b0-skin"
DETECTOR = shipped("models") / "yolov4-tiny-mole"


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def engine_file(cache):
    (file,) = cache.folder.glob("*.engine")
    return file


def sidecar(cache):
    (file,) = cache.folder.glob("*.json")
    return file


def test_an_engine_comes_back_with_its_verdict(cache):
    stored = cache.store(KEY, b"engine", GOOD)
    found = cache.find(KEY)
    assert found == stored
    assert (found.data, found.verdict) == (b"engine", GOOD)
    assert found.path.read_bytes() == b"engine"
    assert EngineCache(cache.folder).find(KEY) == found


def test_an_engine_that_was_not_judged_has_no_verdict(cache):
    cache.store(KEY, b"engine", None)
    assert cache.find(KEY).verdict is None


@pytest.mark.parametrize("name", [field.name for field in fields(EngineKey)])
def test_whatever_an_engine_depends_on_makes_another_key(cache, name):
    cache.store(KEY, b"engine", GOOD)
    value = getattr(KEY, name)
    other = replace(KEY, **{name: value + 1 if isinstance(value, int) else value + "x"})
    assert other.digest != KEY.digest
    assert cache.find(other) is None


def test_everything_is_of_this_user_alone(cache):
    cache.store(KEY, b"engine", GOOD)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in cache.folder.iterdir()} == {0o600}


def changed(cache):
    engine_file(cache).write_bytes(b"enginE")


def cut(cache):
    engine_file(cache).write_bytes(b"engin")


def gone(cache):
    engine_file(cache).unlink()


def writable_by_others(cache):
    engine_file(cache).chmod(0o622)


def readable_by_others(cache):
    sidecar(cache).chmod(0o644)


def a_link(cache):
    file = engine_file(cache)
    elsewhere = cache.folder.parent / "elsewhere"
    elsewhere.write_bytes(file.read_bytes())
    elsewhere.chmod(0o600)
    file.unlink()
    file.symlink_to(elsewhere)


def a_pipe(cache):
    file = engine_file(cache)
    file.unlink()
    os.mkfifo(file, 0o600)


def of_another_user(cache):
    os.chown(engine_file(cache), 65534, -1)


def of_another_key(cache):
    row = json.loads(sidecar(cache).read_bytes())
    row["key"]["gpu"] = "another"
    sidecar(cache).write_text(json.dumps(row))


def another_path(cache):
    row = json.loads(sidecar(cache).read_bytes())
    row["engine"] = "../" + "a" * 61
    sidecar(cache).write_text(json.dumps(row))


def no_json(cache):
    sidecar(cache).write_text("{")


def no_verdict(cache):
    row = json.loads(sidecar(cache).read_bytes())
    row["verdict"] = {"passed": True}
    sidecar(cache).write_text(json.dumps(row))


DAMAGE = [
    changed, cut, gone, writable_by_others, readable_by_others, a_link, a_pipe, of_another_user, of_another_key,
    another_path, no_json, no_verdict,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_poisoned_engine_is_never_loaded_and_can_be_replaced(cache, caplog, damage):
    if damage is of_another_user and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    cache.store(KEY, b"engine", GOOD)
    damage(cache)
    assert cache.find(KEY) is None
    if damage is not gone:
        assert "is not loaded but built anew" in caplog.text
    cache.store(KEY, b"engine", GOOD)
    assert cache.find(KEY).data == b"engine"


def test_an_engine_that_is_replaced_is_removed(cache):
    cache.store(KEY, b"old", GOOD)
    cache.store(KEY, b"new", GOOD)
    cache.store(replace(KEY, gpu="another"), b"other", GOOD)
    assert {file.read_bytes() for file in cache.folder.glob("*.engine")} == {b"new", b"other"}


def test_a_folder_that_others_may_enter_is_refused(tmp_path):
    folder = tmp_path / "engines"
    folder.mkdir(mode=0o755)
    with pytest.raises(ResourceError, match="chmod 700"):
        EngineCache(folder)
    folder.chmod(0o700)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ResourceError, match="must be a folder of this user alone"):
        EngineCache(tmp_path / "link")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be made") as caught:
        EngineCache(tmp_path / "file" / "engines")
    assert "\n" not in str(caught.value)


def test_a_notebook_is_kept_and_one_of_others_is_not_read(cache, caplog):
    assert cache.side_file("timing.cache") == b""
    cache.keep_side_file("timing.cache", b"measured")
    assert cache.side_file("timing.cache") == b"measured"
    (cache.folder / "timing.cache").chmod(0o666)
    assert cache.side_file("timing.cache") == b""
    assert "is not used" in caplog.text


def test_a_verdict_is_stored_as_it_was_told(cache):
    verdict = Verdict(False, ("scores differ by 0.2, allowed 0.03",), {"difference": float(np.float64(0.2))})
    cache.store(KEY, b"engine", verdict)
    assert asdict(cache.find(KEY).verdict) == asdict(verdict)
