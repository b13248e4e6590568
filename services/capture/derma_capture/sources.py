"""Where pictures come from: recordings that wait for credits, live cameras that do not.

A live source is read by a thread that always drains it and keeps the newest picture; every picture it
read has a number, so what was not taken is known and counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from derma_common.addresses import camera_of, redacted
from derma_common.errors import SourceError
from derma_common.preprocess import Image
from derma_common.recordings import Recording, SyntheticRecording, VideoFile, open_recording
from derma_common.seqset import SeqSet
from derma_common.settings import CaptureSettings

REOPEN_S = (0.5, 5.0)  # first and longest pause before a lost camera is opened again


@dataclass(frozen=True, slots=True)
class Shot:
    """The newest picture of a live source: its number since the source was opened, its time, its pixels."""

    number: int
    captured_ns: int
    image: Image


log = logging.getLogger(__name__)


class Reader(Protocol):
    """Reads a live source's next picture, blocking; None at its end or when it is lost."""

    def __call__(self) -> Image | None: ...


OpenReader = Callable[[], tuple[Reader, Callable[[], None]]]  # how to read, how to close


class Grabber:
    """Drains a live source in a thread and keeps the newest picture."""

    def __init__(self, open_reader: OpenReader, reopens: bool) -> None:
        """`open_reader` opens the source in the thread; a source that `reopens` is a camera, which may be lost."""
        self._open_reader, self._reopens = open_reader, reopens
        self._lock = threading.Lock()
        self._newest: Shot | None = None
        self._stopping = threading.Event()
        self.grabbed = 0  # pictures read so far
        self.ended = False
        self.error: SourceError | None = None
        self.wake_fd, self._wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="grabber", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        error: SourceError | None = None
        pause_s = REOPEN_S[0]
        while not self._stopping.is_set():
            before = self.grabbed
            error = self._drain_source()
            if not self._reopens or (error is not None and self.grabbed == 0):
                break
            pause_s = REOPEN_S[0] if self.grabbed > before else min(REOPEN_S[1], 2 * pause_s)
            log.warning("the camera is lost%s; opening it again in %.1f s", f" ({error})" if error else "", pause_s)
            self._stopping.wait(pause_s)
        self._finish(error)

    def _drain_source(self) -> SourceError | None:
        """Read until the source ends, is lost or is not wanted any more; return why it did not open."""
        try:
            read, close = self._open_reader()
            with ExitStack() as closing:
                closing.callback(close)
                while not self._stopping.is_set() and (image := read()) is not None:
                    with self._lock:
                        self._newest = Shot(self.grabbed, time.monotonic_ns(), image)
                        self.grabbed += 1
                    self._wake()
        except SourceError as error:  # it does not open, or it is a recording that turns out to be damaged
            return error
        return None

    def _finish(self, error: SourceError | None) -> None:
        self.error, self.ended = error, True
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_end, b"\0")
        except BlockingIOError:
            return  # the loop has enough to wake up to

    def newest(self) -> Shot | None:
        """Take the newest picture; None when there is none since the last call."""
        with self._lock:
            shot, self._newest = self._newest, None
        return shot

    def drain(self) -> None:
        """Empty the wake-up pipe."""
        try:
            os.read(self.wake_fd, 4096)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Stop the thread; a read that hangs is left to die with the process."""
        self._stopping.set()
        self._thread.join(timeout=1.0)


def open_live(source: str, settings: CaptureSettings) -> Grabber:
    """Start draining a live source."""
    camera = camera_of(source)
    if camera is not None:
        return Grabber(lambda: _open_camera(camera, source, settings), reopens=True)
    recording = open_recording(source)
    return Grabber(lambda: _paced(recording), reopens=False)


def _open_camera(camera: int | str, source: str, settings: CaptureSettings) -> tuple[Reader, Callable[[], None]]:
    network = isinstance(camera, str) and "://" in camera
    if network:
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(settings.open_timeout_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(settings.read_timeout_s * 1000),
        ]  # fmt: skip
        capture = cv2.VideoCapture(str(camera), cv2.CAP_FFMPEG, limits)
    else:
        capture = cv2.VideoCapture(camera)
    if not capture.isOpened():
        hint = "check address, user and password" if network else "check that it is plugged in and readable"
        raise SourceError(f"camera {redacted(source)} does not open; {hint}")

    def read() -> Image | None:
        good, image = capture.read()
        return np.asarray(image, dtype=np.uint8) if good else None

    return read, capture.release


def _paced(recording: Recording) -> tuple[Reader, Callable[[], None]]:
    """Read a recording at its own speed, as a camera would give it."""
    fps = recording.fps if isinstance(recording, VideoFile | SyntheticRecording) else 1.0
    pictures = recording.pictures(SeqSet())
    started_ns = time.monotonic_ns()

    def read() -> Image | None:
        for picture in pictures:
            due_ns = started_ns + round(picture.seq * 1e9 / fps)
            time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            if picture.image is not None:
                return picture.image
        return None

    return read, _nothing


def _nothing() -> None:
    """Close nothing."""
