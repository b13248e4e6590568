"""Settings: what overrides what, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.config import SECTIONS, choose_for_machine, load_settings, settings_from
from derma_common.errors import ConfigError
from derma_common.plan import RunPlan, read_plan, write_plan
from derma_common.settings import Camera, Settings
from derma_common.shipped import shipped


@pytest.fixture
def toml(tmp_path):
    def write(text):
        file = tmp_path / "derma.toml"
        file.write_text(text)
        return file

    return write


def refused(file=None, environment=None, flags=None):
    """Return the one line with which the settings are refused."""
    with pytest.raises(ConfigError) as caught:
        load_settings(file, environment or {}, flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_anything_the_defaults_hold():
    assert load_settings(None, {}) == choose_for_machine(Settings(), len(os.sched_getaffinity(0)))


def test_the_file_overrides_a_default(toml):
    assert load_settings(toml("[capture]\nwindow = 5\n"), {}).capture.window == 5


def test_the_environment_overrides_the_file(toml):
    file = toml("[capture]\nwindow = 5\n")
    assert load_settings(file, {"DERMA_CAPTURE_WINDOW": "6"}).capture.window == 6


def test_a_flag_overrides_the_environment(toml):
    file = toml("[capture]\nwindow = 5\n")
    settings = load_settings(file, {"DERMA_CAPTURE_WINDOW": "6"}, {"capture.window": 7})
    assert settings.capture.window == 7


def test_what_is_overridden_leaves_its_neighbours_alone(toml):
    settings = load_settings(toml("[capture]\nwindow = 5\nthreads = 2\n"), {}, {"capture.window": 7})
    assert (settings.capture.window, settings.capture.threads) == (7, 2)


@pytest.mark.parametrize(
    ("name", "text", "section", "key", "value"),
    [
        ("DERMA_RUN_DATA_DIR", "/x", "run", "data_dir", "/x"),
        ("DERMA_METRICS_ENABLED", "false", "metrics", "enabled", False),
        ("DERMA_METRICS_ENABLED", "1", "metrics", "enabled", True),
        ("DERMA_CAPTURE_DEADLINE_S", "1.5", "capture", "deadline_s", 1.5),
        ("DERMA_SINK_CORES", "0, 1", "sink", "cores", (0, 1)),
    ],
)
def test_the_environment_is_read_by_the_type_of_the_setting(name, text, section, key, value):
    assert getattr(getattr(load_settings(None, {name: text}), section), key) == value


def test_other_variables_of_the_environment_are_left_alone():
    assert load_settings(None, {"DERMA_HOME": "x", "PATH": "y", "DERMA_CAPTURED": "z"}) == load_settings(None, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[captur]\nwindow = 5", "unknown section [captur]; did you mean 'capture'?"),
        ("[capture]\nwindwo = 5", "unknown setting capture.windwo; did you mean 'window'?"),
        ("[capture]\nzzz = 5", "unknown setting capture.zzz; there are: window, "),
        ("[capture]\nwindow = 'five'", "capture.window must be a whole number, got 'five'"),
        ("[capture]\nwindow = 5.0", "capture.window must be a whole number"),
        ("[capture]\nwindow = true", "capture.window must be a whole number"),
        ("[capture]\nwindow = 0", "capture.window must be at least 1, got 0"),
        ("[capture]\nwindow = 5000", "capture.window must be at most 1024"),
        ("[capture]\ndeadline_s = nan", "capture.deadline_s"),
        ("[capture]\ndeadline_s = inf", "capture.deadline_s"),
        ("[detector]\nscore_threshold = nan", "detector.score_threshold"),
        ("[capture]\ncores = [0, -1]", "capture.cores must be a list of core numbers"),
        ("[capture]\ncores = 1", "capture.cores must be a list of core numbers"),
        ("[metrics]\nenabled = 1", "metrics.enabled must be true or false"),
        ("[run]\ndata_dir = 5", "run.data_dir must be text"),
        ("[logging]\nlevel = 'loud'", "logging.level must be one of debug, info, warning, error"),
        ("[logging]\nformat = 'xml'", "logging.format must be one of human, json, got 'xml'"),
        ("[tracing]\nsample_ratio = 1.5", "tracing.sample_ratio must be at most 1"),
        ("[tracing]\nendpoint = 'localhost:4318'", "tracing.endpoint must be empty or an address such as http://"),
        ("capture = 5", "[capture] must be a table"),
        ("[camera]\nname = 'a'", "cameras are written as [[camera]] tables"),
        ("[[camera]]\nname = 'a'", "a [[camera]] needs `name` and `source`"),
        (
            "[[camera]]\nname = 'a'\nsource = '0'\nsuorce = '0'",
            "camera a: unknown setting suorce; did you mean 'source'?",
        ),
        ("[[camera]]\nname = 'a'\nsource = '0'\nfps = -1", "camera a: fps must be at least 0"),
        ("[[camera]]\nname = 'a'\nsource = '0'\nwidth_px = 1.5", "camera a: width_px must be a whole number"),
        ("[[camera]]\nname = 'a'\nsource = '0'\npixel_format = 'mjpeg'", "four letters such as MJPG"),
        ("[[camera]]\nname = 'A B'\nsource = '0'", "camera name 'A B' must be"),
        ("[[camera]]\nname = '../x'\nsource = '0'", "camera name '../x' must be"),
        ("[[camera]]\nname = 'a'\nsource = '0'\nlive = 'yes'", "live"),
        (
            "[[camera]]\nname = 'a'\nsource = '0'\n[[camera]]\nname = 'a'\nsource = '1'",
            "two cameras have the same name",
        ),
        ("[capture\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_what_is_right(toml, text, says):
    line = refused(toml(text))
    assert says in line
    assert "derma.toml" in line


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert f"there is no settings file {tmp_path / 'none.toml'}" in refused(tmp_path / "none.toml")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "derma.toml").write_bytes(b"\xff\xfe")
    assert "cannot be read" in refused(tmp_path / "derma.toml")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"DERMA_CAPTURE_WINDOW": "many"}, "DERMA_CAPTURE_WINDOW: 'many' is not a whole number"),
        ({"DERMA_METRICS_ENABLED": "perhaps"}, "DERMA_METRICS_ENABLED: 'perhaps' is not true or false"),
        ({"DERMA_SINK_CORES": "a b"}, "DERMA_SINK_CORES: 'a b' is not a list of core numbers"),
        ({"DERMA_CAPTURE_DEADLINE_S": "nan"}, "capture.deadline_s"),
        ({"DERMA_CAPTURE_WINDOE": "5"}, "unknown setting capture.windoe; did you mean 'window'?"),
    ],
)
def test_a_wrong_variable_is_one_line(environment, says):
    assert says in refused(environment=environment)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"captur.window": 5}, "did you mean 'capture'?"),
        ({"capture.widnow": 5}, "did you mean 'window'?"),
        ({"capture.window": "5"}, "capture.window must be a whole number, got '5'"),
        ({"camera.name": "x"}, "[[camera]]"),
    ],
)
def test_a_wrong_flag_is_one_line(flags, says):
    assert says in refused(flags=flags)


@pytest.mark.parametrize("text", ["capture = 5", "[[capture]]\nwindow = 5"])
def test_a_section_that_is_no_table_is_one_line_even_when_it_is_overridden(toml, text):
    assert "[capture] must be a table" in refused(toml(text), flags={"capture.window": 7})
    assert "[capture] must be a table" in refused(toml(text), {"DERMA_CAPTURE_WINDOW": "7"})


def test_a_flag_for_one_of_the_cameras_of_the_file_is_one_line(toml):
    assert "[[camera]]" in refused(toml("[[camera]]\nname = 'a'\nsource = '0'\n"), flags={"camera.name": "b"})


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2000), st.floats(), st.text(max_size=5),
    st.lists(st.integers(-2, 5), max_size=3), st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)  # fmt: skip
KEYS = [*sorted({f.name for s in fields(Settings) if s.name != "camera" for f in fields(s.default_factory)}), "x"]
TABLES = st.dictionaries(
    st.sampled_from([*SECTIONS, "camera", "x"]), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3) | VALUES
)


@given(TABLES)
def test_any_table_is_settings_or_one_clear_line(table):
    try:
        settings = settings_from(table, "the file")
    except ConfigError as error:
        assert str(error).startswith("the file: ")
        assert "\n" not in str(error)
        return
    for section, values in table.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            assert getattr(getattr(settings, section), key) == (tuple(value) if isinstance(value, list) else value)


def test_cameras_of_the_file_keep_name_source_and_nature(toml):
    text = "[[camera]]\nname = 'left'\nsource = 'rtsp://x/1'\n[[camera]]\nname = 'r-2'\nsource = 'a.mp4'\nlive = true\n"
    assert load_settings(toml(text), {}).camera == (
        Camera("left", "rtsp://x/1", None),
        Camera("r-2", "a.mp4", True),
    )


@given(cores=st.integers(1, 256), detectors=st.integers(1, 4))
def test_threads_are_chosen_to_fill_the_machine_and_not_more(cores, detectors):
    chosen = choose_for_machine(replace(Settings(), detector=replace(Settings().detector, workers=detectors)), cores)
    used = chosen.detector.threads * detectors + chosen.classifier.threads * chosen.classifier.workers
    assert chosen.detector.threads >= 1
    assert chosen.classifier.workers >= 1
    assert used <= max(cores, detectors + 1)


def test_what_was_set_is_not_chosen_again():
    settings = load_settings(None, {}, {"detector.threads": 3, "classifier.workers": 2, "classifier.threads": 5})
    assert (settings.detector.threads, settings.classifier.workers, settings.classifier.threads) == (3, 2, 5)


def test_the_database_lies_in_the_data_directory_unless_it_is_said(tmp_path):
    assert load_settings(None, {}, {"run.data_dir": str(tmp_path)}).database == tmp_path / "derma.db"
    assert load_settings(None, {}, {"sink.database": "/y/z.db"}).database == Path("/y/z.db")


def test_a_plan_comes_back_as_it_was(tmp_path):
    settings = load_settings(None, {}, {"capture.cores": [0, 1], "capture.deadline_s": 3})
    settings = replace(settings, camera=(Camera("cam0", "x.mp4", None), Camera("cam1", "0", True)))
    plan = RunPlan("run", str(tmp_path), settings, "d", "c")
    write_plan(plan)
    assert read_plan(tmp_path) == plan
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", '{"settings": 5}', '{"settings": {}, "run_id": "x"}'])
def test_a_plan_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ConfigError, match=r"run plan|the run's plan"):
        read_plan(tmp_path)


def test_a_run_without_a_plan_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="holds no run plan"):
        read_plan(tmp_path)


def test_the_documented_settings_are_the_defaults():
    file = shipped("derma.toml") if shipped("derma.toml").exists() else shipped("deploy") / "derma.toml"
    documented = tomllib.loads(file.read_text())
    if not documented:
        pytest.skip(f"{file} is not written yet")
    settings_from(documented, str(file))
    defaults = json.loads(json.dumps(asdict(Settings())))
    del defaults["camera"]
    documented.pop("camera", None)
    assert documented == defaults
