"""From the texts of a command line, or the settings, to the cameras of a run: checked before any process starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from derma_common.addresses import camera_of, is_live, names_secret, redacted, with_credentials
from derma_common.errors import ConfigError
from derma_common.recordings import PictureFiles, open_recording, read_picture
from derma_common.secret_files import read_secret
from derma_common.settings import CAMERA_NAME, Camera, Settings, TilePx
from derma_common.shipped import SAMPLE, shipped
from derma_common.stderr import muted

SAMPLE_WORD = "sample"  # the shipped recording, wherever derma is installed
OTHERS = 0o077  # everybody but the owner
MOST_SOURCES = 32  # each has a process; a pattern that the shell expanded makes thousands


def cameras_of(
    sources: Sequence[str],
    live: bool,
    tile: TilePx | None,
    settings: Settings,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Camera, ...]:
    """Return the cameras of the command line, else those of the settings; `live` and `tile` are for all of them.

    Paths become absolute, credentials a part of the address. Raises ConfigError and SourceError.
    """
    cameras = [_camera(i, text, live) for i, text in enumerate(sources)] or list(settings.camera)
    if not cameras:
        raise ConfigError(
            "nothing to examine: give a SOURCE, such as a video file, a folder of pictures or 0 for a webcam"
        )
    if len({c.name for c in cameras}) < len(cameras):
        raise ConfigError("two sources have the same name")
    if len(cameras) > MOST_SOURCES:
        raise ConfigError(
            f"{len(cameras)} sources would start as many processes, at most {MOST_SOURCES} may: give the folder, "
            "or put the pattern in quotes, such as 'shots/*.jpg', so that it stays one source"
        )
    if tile is not None:
        cameras = [replace(camera, tile_px=tile) for camera in cameras]
    return tuple(_checked(_with_credentials(camera, environment)) for camera in cameras)


def _camera(index: int, text: str, live: bool) -> Camera:
    name, found, source = text.partition("=")
    if not (found and CAMERA_NAME.match(name)) or Path(text).exists():
        name, source = f"cam{index}", text
    if source == SAMPLE_WORD and not Path(source).exists():
        source = str(shipped(SAMPLE))
    if names_secret(source):
        raise ConfigError(
            f"{redacted(source)}: a password on a command line is shown to everybody in the process list; give the "
            f"address without it, and {_variable(name, 'USER')} and {_variable(name, 'PASSWORD')} in the environment, "
            "or the camera as a [[camera]] of a settings file"
        )
    return Camera(name, source, live or None)


def _variable(camera: str, what: str) -> str:
    return f"DERMA_CAMERA_{camera.upper().replace('-', '_')}_{what}"


def _with_credentials(camera: Camera, environment: Mapping[str, str]) -> Camera:
    """Put user and password, from the environment or the camera's password file, into its address."""
    user = environment.get(_variable(camera.name, "USER"), camera.user)
    password = environment.get(_variable(camera.name, "PASSWORD"), "")
    password = password or read_secret(camera.password_file, f"camera {camera.name}: password_file", OTHERS)
    if not user and not password:
        return camera
    where = f"camera {camera.name}"
    if "://" not in camera.source or not isinstance(camera_of(camera.source), str):
        raise ConfigError(f"{where}: only a network camera has a user and a password")
    if not user:
        raise ConfigError(f"{where}: a password needs a user: set {_variable(camera.name, 'USER')} or `user`")
    if "@" in camera.source:
        raise ConfigError(f"{where}: its address holds a user already; leave out one of the two")
    return replace(camera, source=with_credentials(camera.source, user, password))


def _checked(camera: Camera) -> Camera:
    """Open a recording once, so that what cannot be read is said at once; make its path absolute."""
    source = camera.source
    if camera_of(source) is None:
        with muted():  # what FFmpeg has to say is said better
            recording = open_recording(source)
        if isinstance(recording, PictureFiles) and recording.is_single:
            read_picture(recording.files[0])
        if not source.startswith("synthetic:"):
            source = str(Path(source).expanduser().absolute())
    return replace(camera, source=source, live=is_live(source, camera.live))
