"""Cameras over a network: a real RTSP server and a real HTTP server on the loopback."""

from __future__ import annotations

import functools
import http.server
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.mjpeg_camera import MjpegCamera
from support.observing import free_port
from support.place import Place
from support.rtsp_camera import RtspCamera
from support.runs import derma, query, up, wait_for


@pytest.fixture
def rtsp_camera() -> Iterator[str]:
    """Serve a moving picture by RTSP; skip where GStreamer's server is not installed."""
    with RtspCamera() as camera:
        yield camera.url


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the camera `room` a user and a password, as its owner would."""
    monkeypatch.setenv("DERMA_CAMERA_ROOM_USER", "user")
    monkeypatch.setenv("DERMA_CAMERA_ROOM_PASSWORD", "canary-secret")


@pytest.mark.usefixtures("password")
def test_an_rtsp_camera_is_followed_live_and_its_password_is_written_nowhere(place: Place, rtsp_camera: str) -> None:
    with up(f"room={rtsp_camera}", *place.models, **place.dirs) as run:
        enough = "SELECT count(*) FROM frames WHERE outcome = 'delivered'"
        run.wait_ready("sink.0")
        wait_for(lambda: query(place.data_dir, enough)[0][0] >= 20, "20 frames from the camera")
        run.process.send_signal(signal.SIGINT)
        summary = run.finish()
    assert summary["delivered"] >= 20 and summary["in_flight"] == 0
    assert query(place.data_dir, "SELECT live, source FROM cameras")[0][0] == 1
    for file in [f for f in place.data_dir.rglob("*") if f.is_file()]:
        assert b"canary-secret" not in file.read_bytes(), f"the password is in {file}"


def test_a_recording_behind_http_plays_as_a_live_source(place: Place, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "in.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 240))
    for i in range(60):
        writer.write(np.full((240, 320, 3), 80 + i, dtype=np.uint8))
    writer.release()
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_address[1]}/in.mp4"
        with up(source, *place.models, **place.dirs) as run:
            run.wait_ready("sink.0")
            wait_for(lambda: query(place.data_dir, "SELECT count(*) FROM frames")[0][0] > 10, "frames")
            run.process.send_signal(signal.SIGINT)
            assert run.finish()["delivered"] > 0
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.usefixtures("password")
def test_a_camera_that_does_not_open_ends_the_run_with_one_line_without_its_password(place: Place) -> None:
    done = derma("up", f"room=rtsp://127.0.0.1:{free_port()}/camera", *place.models, **place.dirs)
    assert done.returncode == 3
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("derma: ") and "does not open; check address, user and password" in last
    assert "canary-secret" not in done.stderr + done.stdout


def test_a_camera_that_is_dead_at_the_start_keeps_no_other_from_work_and_joins_when_it_comes(place: Place) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/camera.mjpg"
    sources = ("good=synthetic://?frames=0&fps=10&width=320&height=240", f"door={address}")
    frames = "SELECT count(*) FROM frames WHERE outcome = 'delivered' AND camera = '{}'"
    with up(*sources, *place.models, **place.dirs) as run:
        run.wait_ready("sink.0", "capture.good", "capture.door")
        complaint = f"capture.door: camera {address} does not open; check address, user and password; it is tried again"
        wait_for(lambda: complaint in run.said(), "the dead camera to be told")
        wait_for(lambda: query(place.data_dir, frames.format("good"))[0][0] >= 10, "frames of the other one")
        assert query(place.data_dir, frames.format("door")) == [(0,)]
        with MjpegCamera(port=port):
            wait_for(lambda: query(place.data_dir, frames.format("door"))[0][0] >= 10, "frames of the late one")
            run.process.send_signal(signal.SIGINT)
            summary = run.finish()
    assert summary["captured"] == summary["delivered"] + sum(summary["dropped"].values())
    assert (summary["in_flight"], summary["restarts"]) == (0, 0)


def test_cameras_that_are_all_dead_are_waited_for_and_the_run_can_be_ended(place: Place) -> None:
    sources = [f"{name}=http://127.0.0.1:{free_port()}/camera.mjpg" for name in ("left", "right")]
    with up(*sources, *place.models, **place.dirs) as run:
        run.wait_ready("sink.0", "capture.left", "capture.right")
        wait_for(lambda: run.said().count("does not open") == 2, "both to be told")
        run.process.send_signal(signal.SIGINT)
        summary = run.finish()
    assert (summary["captured"], summary["restarts"]) == (0, 0)
