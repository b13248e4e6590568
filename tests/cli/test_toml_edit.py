"""Values are set in a settings file, and nothing else of it changes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_cli.toml_edit import edited, write_values
from derma_common.errors import ConfigError, ResourceError

VALUES = {"detector.threads": 3, "classifier.workers": 2}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[detector]\nthreads = 3\n\n[classifier]\nworkers = 2\n"),
        ("[detector]\nthreads = 1  # all\n", "[detector]\nthreads = 3  # all\n\n[classifier]\nworkers = 2\n"),
        (
            "[classifier]\n[ detector ] # x\nmodel = 'a'",
            "[classifier]\nworkers = 2\n[ detector ] # x\nthreads = 3\nmodel = 'a'\n",
        ),
        (
            "# mine\n[detector]\n  threads=1\n[capture]\nthreads = 1\n[classifier]\nworkers = 9\n",
            "# mine\n[detector]\n  threads=3\n[capture]\nthreads = 1\n[classifier]\nworkers = 2\n",
        ),
        (
            "[detector]\n[[camera]]\nname = 'a'\nsource = '[classifier]'\n",
            "[detector]\nthreads = 3\n[[camera]]\nname = 'a'\nsource = '[classifier]'\n\n[classifier]\nworkers = 2\n",
        ),
    ],
)  # fmt: skip
def test_only_the_values_change(before, after):
    assert edited(before, VALUES) == after


@pytest.mark.parametrize(
    "text",
    [
        "detector = {threads = 1}\n",
        "detector.threads = 1\n",
        "x = '''\n[detector]\n'''\n",
        "detector = 5\n",
        "[detector\n",
    ],
)
def test_a_file_that_is_written_otherwise_is_left_alone_and_the_values_are_told(tmp_path, text):
    file = tmp_path / "derma.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"set by hand: detector\.threads = 3, classifier\.workers = 2"):
        write_values(file, VALUES)
    assert file.read_text() == text and list(tmp_path.iterdir()) == [file]


SECTION = st.dictionaries(
    st.sampled_from(["threads", "workers", "model", "cores"]), st.sampled_from(["1", "0", "'a # b'", "[0, 1]", "true"])
)
TEXTS = st.lists(
    st.tuples(st.sampled_from(["detector", "classifier", "capture", "run"]), SECTION), unique_by=lambda pair: pair[0]
).map(lambda pairs: "".join(f"[{s}]\n" + "".join(f"{k} = {v} # why\n" for k, v in d.items()) for s, d in pairs))


@given(TEXTS, st.integers(0, 64))
def test_whatever_stands_there_the_result_has_the_values_and_all_else(before, value):
    wanted = tomllib.loads(before)
    wanted.setdefault("detector", {})["threads"] = value
    after = edited(before, {"detector.threads": value})
    assert tomllib.loads(after) == wanted
    assert after.count("# why") == before.count("# why")


def test_a_file_keeps_its_rights_and_a_new_one_is_private(tmp_path):
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text("[run]\n")
    old.chmod(0o640)
    for file in (old, new):
        write_values(file, VALUES)
    assert [file.stat().st_mode & 0o777 for file in (old, new)] == [0o640, 0o600]


def test_a_place_that_cannot_be_written_is_one_line():
    with pytest.raises(ResourceError, match="set by hand"):
        write_values(Path("/proc/derma.toml"), VALUES)
