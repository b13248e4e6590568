"""Options that several commands share."""

from __future__ import annotations

import pytest

from derma_cli.options import parse_assignments, resolve
from derma_common.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("capture.window=4", "capture.window", 4),
        ("capture.deadline_s=1.5", "capture.deadline_s", 1.5),
        ("metrics.enabled=false", "metrics.enabled", False),
        ("capture.cores=[0, 1]", "capture.cores", [0, 1]),
        ('run.data_dir="x=y"', "run.data_dir", "x=y"),
        ("run.data_dir=/data/exams", "run.data_dir", "/data/exams"),
        ("run.data_dir=", "run.data_dir", ""),
    ],
)
def test_an_assignment_is_read_like_a_line_of_the_settings_file(text, key, value):
    assert parse_assignments([text]) == {key: value}


@pytest.mark.parametrize("text", ["", "window", "window=4", "=4", "capture.window"])
def test_an_assignment_that_is_none_says_how_to_write_it(text):
    with pytest.raises(ConfigError, match=r"write section.key=value"):
        parse_assignments([text])


@pytest.mark.parametrize("value", ["4\nx = 5", "4\n[run]\ndata_dir = 'x'"])
def test_an_assignment_is_one_value_and_nothing_more(value):
    with pytest.raises(ConfigError):
        resolve(None, None, parse_assignments([f"capture.window={value}"]))


def test_a_flag_that_was_not_given_overrides_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "derma.toml").write_text("[classifier]\nworkers = 3\n")
    assert resolve(None, None, {"classifier.workers": None}).classifier.workers == 3


def test_the_settings_file_of_this_folder_is_used_when_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve(None, None).capture.window == 8
    (tmp_path / "derma.toml").write_text("[capture]\nwindow = 3\n")
    assert resolve(None, None).capture.window == 3
    (tmp_path / "other.toml").write_text("[capture]\nwindow = 4\n")
    assert resolve(tmp_path / "other.toml", None).capture.window == 4


def test_the_data_directory_of_the_command_line_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DERMA_RUN_DATA_DIR", "from-the-environment")
    assert resolve(None, None).data_dir == tmp_path / "from-the-environment"
    assert resolve(None, "here").data_dir == tmp_path / "here"
