"""From the texts of a command line to cameras: paths, patterns, and credentials that no process list may show."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from derma_cli.sources import MOST_SOURCES, cameras_of
from derma_common.errors import ConfigError, SourceError
from derma_common.settings import Camera, Settings
from derma_common.shipped import SAMPLE, shipped

CANARY = "canary-p@ss:w/rd"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shots").mkdir()
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / "shots" / name), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


def cameras(*sources, settings=None, environment=None, tile=None):
    return cameras_of(sources, False, tile, settings or Settings(), environment or {})


def test_paths_and_patterns_become_absolute_and_get_names(here):
    assert [(c.name, c.source, c.live) for c in cameras("shots", "left=shots/*.png", "0")] == [
        ("cam0", str(here / "shots"), False), ("left", str(here / "shots/*.png"), False), ("cam2", "0", True),
    ]  # fmt: skip


def test_a_file_whose_name_has_an_equals_sign_is_that_file(here):
    (here / "shots" / "1.png").rename(here / "a=1.png")
    assert cameras("a=1.png")[0].source == str(here / "a=1.png")


def test_sample_is_the_shipped_recording_unless_something_here_is_called_so(here):
    (camera,) = cameras("sample")
    assert (camera.source, camera.live) == (str(shipped(SAMPLE)), False)
    (here / "shots").rename(here / "sample")
    assert cameras("sample")[0].source == str(here / "sample")


def test_a_pattern_that_the_shell_expanded_is_refused_before_it_starts_a_thousand_processes():
    with pytest.raises(ConfigError, match=r"put the pattern in quotes, such as 'shots/\*\.jpg'"):
        cameras(*["0"] * (MOST_SOURCES + 1))


def test_ffmpegs_own_words_do_not_come_before_the_one_clear_line(here, capfd):
    (here / "cut.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(500))
    with pytest.raises(SourceError, match="is not a video that FFmpeg can open"):
        cameras("cut.mp4")
    os.write(2, b"later words are seen")
    assert capfd.readouterr().err == "later words are seen"


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://user:canary@host/stream", "room=rtsp://user:canary@host/stream", "http://canary@host/x",
        "rtsp://host/stream?password=canary", "http://host/x?a=1&Token=canary", "rtsp://host/user=admin&password=canary",
    ],
)  # fmt: skip
def test_a_password_on_the_command_line_is_refused_and_not_repeated(source):
    with pytest.raises(ConfigError, match="shown to everybody in the process list") as caught:
        cameras(source)
    assert "canary" not in str(caught.value)
    name = "ROOM" if source.startswith("room") else "CAM0"
    assert f"DERMA_CAMERA_{name}_PASSWORD" in str(caught.value)


@pytest.mark.parametrize("source", ["rtsp://host/live?channel=1&subtype=0", "http://host/keyframes/x.m3u8?fps=5"])
def test_an_ordinary_query_is_no_secret(source):
    assert cameras(source)[0].source == source


def test_user_and_password_come_from_the_environment(here):
    environment = {"DERMA_CAMERA_ROOM_1_USER": "doc@home", "DERMA_CAMERA_ROOM_1_PASSWORD": CANARY}
    (camera,) = cameras("room-1=rtsp://host:554/stream", environment=environment)
    assert camera.source == "rtsp://doc%40home:canary-p%40ss%3Aw%2Frd@host:554/stream"


def test_user_and_password_come_from_the_settings_and_a_file(here):
    file = here / "password"
    file.write_text(CANARY + "\n")
    file.chmod(0o600)
    settings = Settings(camera=(Camera("room", "rtsp://host/stream", user="doc", password_file=str(file)),))
    assert cameras(settings=settings)[0].source == "rtsp://doc:canary-p%40ss%3Aw%2Frd@host/stream"
    (camera,) = cameras(settings=settings, environment={"DERMA_CAMERA_ROOM_PASSWORD": "other"})
    assert camera.source == "rtsp://doc:other@host/stream"


def test_an_address_with_its_password_may_stand_in_the_settings():
    settings = Settings(camera=(Camera("room", "rtsp://u:p@host/stream"),))
    assert cameras(settings=settings)[0].source == "rtsp://u:p@host/stream"


@pytest.mark.parametrize(
    ("camera", "environment", "words"),
    [
        (Camera("a", "0"), {"DERMA_CAMERA_A_USER": "u"}, "only a network camera"),
        (Camera("a", "shots"), {"DERMA_CAMERA_A_USER": "u"}, "only a network camera"),
        (Camera("a", "rtsp://h/1"), {"DERMA_CAMERA_A_PASSWORD": "canary"}, "a password needs a user"),
        (Camera("a", "rtsp://u:canary@h/1"), {"DERMA_CAMERA_A_USER": "u"}, "leave out one of the two"),
        (Camera("a", "rtsp://h/1", user="u", password_file="none"), {}, "password_file none cannot be read"),
    ],
)
def test_credentials_that_make_no_sense_are_one_line(camera, environment, words):
    with pytest.raises(ConfigError, match=words) as caught:
        cameras(settings=Settings(camera=(camera,)), environment=environment)
    assert "canary" not in str(caught.value)


def test_a_password_file_that_others_can_read_is_refused(here):
    (here / "password").write_text(CANARY)
    (here / "password").chmod(0o644)
    settings = Settings(camera=(Camera("a", "rtsp://h/1", user="u", password_file="password"),))
    with pytest.raises(ConfigError, match="can be read by others: chmod 600 it"):
        cameras(settings=settings)
