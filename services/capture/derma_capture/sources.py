"""How each kind of live source is opened and read: webcams, network cameras, recordings played at their own speed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from derma_capture.grabber import Grabber, Reader
from derma_common.addresses import camera_of, redacted
from derma_common.errors import SourceError
from derma_common.preprocess import Image
from derma_common.recordings import Recording, SyntheticRecording, VideoFile, open_recording
from derma_common.seqset import SeqSet
from derma_common.settings import Camera, CaptureSettings

OLDEST_DRIVER_TIME_NS = 1_000_000_000  # a picture is never so old when it is read: then the clock is another one
log = logging.getLogger(__name__)


def open_live(camera: Camera, settings: CaptureSettings, must_open: bool = True) -> Grabber:
    """Start draining a live source; a camera that may be unplugged just now need not open at once."""
    address = camera_of(camera.source)
    if address is None:
        recording = open_recording(camera.source)
        return Grabber(lambda: _paced(recording), reopens=False)
    if isinstance(address, str) and "://" in address:
        return Grabber(lambda: _open_network(camera, settings), reopens=True, must_open=must_open)
    return Grabber(lambda: _open_webcam(address, camera), reopens=True, must_open=must_open)


def _open_network(camera: Camera, settings: CaptureSettings) -> tuple[Reader, Callable[[], None]]:
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(settings.open_timeout_s * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(settings.read_timeout_s * 1000),
    ]  # fmt: skip
    capture = cv2.VideoCapture(camera.source, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise SourceError(f"camera {redacted(camera.source)} does not open; check address, user and password")

    def read() -> tuple[Image, int] | None:
        good, image = capture.read()
        return (np.asarray(image, dtype=np.uint8), time.monotonic_ns()) if good else None

    return read, capture.release


def _open_webcam(device: int | str, camera: Camera) -> tuple[Reader, Callable[[], None]]:
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise SourceError(f"camera {camera.source} does not open; {_why_not(device)}")
    _wish(capture, camera)

    def read() -> tuple[Image, int] | None:
        good, image = capture.read()
        if not good:
            return None
        now_ns = time.monotonic_ns()
        return np.asarray(image, dtype=np.uint8), driver_time_ns(capture.get(cv2.CAP_PROP_POS_MSEC), now_ns)

    return read, capture.release


def _why_not(device: int | str) -> str:
    path = Path(f"/dev/video{device}" if isinstance(device, int) else device)
    if not path.exists():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
        return f"check that it is plugged in ({path} is not there; there is: {there})"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"you may not use {path}: add yourself to its group (usermod -aG video $USER) and log in again"
    return "check that no other program uses it, and that it is a camera (v4l2-ctl --list-devices)"


def _wish(capture: cv2.VideoCapture, camera: Camera) -> None:
    """Ask the driver for what the settings want; it gives what it can, which is logged."""
    wishes = {
        # the format first: the sizes and rates that a driver offers depend on it
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*camera.pixel_format) if camera.pixel_format else 0,
        cv2.CAP_PROP_FRAME_WIDTH: camera.width_px,
        cv2.CAP_PROP_FRAME_HEIGHT: camera.height_px,
        cv2.CAP_PROP_FPS: camera.fps,
    }
    for key, value in wishes.items():
        if value:
            capture.set(key, value)
    width, height, fps = (
        capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS)
    )
    log.info("the camera gives %.0f x %.0f px at %.4g frames/s", width, height, fps)
    if (camera.width_px or width, camera.height_px or height) != (width, height):
        log.warning("%d x %d px were asked: the driver offers others", camera.width_px, camera.height_px)


def driver_time_ns(stamp_ms: float, now_ns: int) -> int:
    """Return when the driver took a picture, on the monotonic clock; `now_ns` where it does not say so.

    V4L2 drivers stamp buffers with the monotonic clock; OpenCV passes that on as POS_MSEC (0: none).
    """
    stamp_ns = round(stamp_ms * 1e6)
    return stamp_ns if 0 <= now_ns - stamp_ns <= OLDEST_DRIVER_TIME_NS else now_ns


def _paced(recording: Recording) -> tuple[Reader, Callable[[], None]]:
    """Read a recording at its own speed, as a camera would give it."""
    fps = recording.fps if isinstance(recording, VideoFile | SyntheticRecording) else 1.0
    pictures = recording.pictures(SeqSet())
    started_ns = time.monotonic_ns()

    def read() -> tuple[Image, int] | None:
        for picture in pictures:
            at_s = picture.seq / fps if picture.at_s is None else picture.at_s
            due_ns = started_ns + round(at_s * 1e9)
            time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            if picture.image is not None:
                return picture.image, time.monotonic_ns()
        return None

    return read, _nothing


def _nothing() -> None:
    """Close nothing."""
