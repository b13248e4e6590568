"""The grabber: a thread that always drains a live source and keeps the newest picture.

Every picture that it read has a number, so what was not taken is known and counted. A camera that is lost is opened
again, for as long as the run goes on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from derma_common.back_off import BackOff
from derma_common.errors import SourceError
from derma_common.preprocess import Image

REOPEN_S = (0.5, 5.0)  # first and longest pause before a lost camera is opened again
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shot:
    """The newest picture of a live source: its number since the source was opened, its time, its pixels."""

    number: int
    captured_ns: int
    image: Image


class Reader(Protocol):
    """Reads a live source's next picture and its monotonic time in ns, blocking; None at its end or when it is lost."""

    def __call__(self) -> tuple[Image, int] | None: ...


OpenReader = Callable[[], tuple[Reader, Callable[[], None]]]  # how to read, how to close


class Grabber:
    """Drains a live source in a thread and keeps the newest picture."""

    def __init__(self, open_reader: OpenReader, reopens: bool, must_open: bool = True) -> None:
        """`open_reader` opens the source in the thread; a source that `reopens` is a camera, which may be lost.

        `must_open`: a camera that does not open at the start is an error; else it may come later.
        """
        self._open_reader, self._reopens, self._must_open = open_reader, reopens, must_open
        self._lock = threading.Lock()
        self._newest: Shot | None = None
        self._stopping = threading.Event()
        self.grabbed = 0  # pictures read so far
        self.ended = False
        self.error: SourceError | None = None
        self.note = ""  # what a person should know now
        self.wake_fd, self._wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="grabber", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        error: SourceError | None = None
        back_off = BackOff(*REOPEN_S)
        while not self._stopping.is_set():
            before = self.grabbed
            error = self._drain_source()
            if not self._reopens or (self._must_open and error is not None and self.grabbed == 0):
                break
            if self._stopping.is_set():
                break
            if self.grabbed > before:
                back_off.worked()
            pause_s = back_off.failed()
            self.note = self._complaint(error)
            log.warning("%s in %.1f s", self.note, pause_s)
            self._stopping.wait(pause_s)
        self._finish(error)

    def _complaint(self, error: SourceError | None) -> str:
        if self.grabbed == 0 and error is not None:
            return f"{error}; it is tried again and again"
        return f"the camera is lost{f' ({error})' if error else ''}; trying to open it again"

    def _drain_source(self) -> SourceError | None:
        """Read until the source ends, is lost or is not wanted any more; return why it did not open."""
        try:
            read, close = self._open_reader()
            with ExitStack() as closing:
                closing.callback(close)
                while not self._stopping.is_set() and (taken := read()) is not None:
                    if self.note:
                        log.warning("the camera is back")
                        self.note = ""
                    with self._lock:
                        self._newest = Shot(self.grabbed, taken[1], taken[0])
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
