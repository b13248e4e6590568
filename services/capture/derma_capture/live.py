"""Capture of a source that does not wait for anybody."""

from __future__ import annotations

import time
from collections.abc import Iterable

from derma_capture.grabber import Grabber
from derma_capture.stage import CaptureStage
from derma_common.errors import SourceError
from derma_common.messages import Message
from derma_common.stage import BEAT_S
from derma_common.topology import Service


class LiveCapture(CaptureStage):
    """A source that does not wait: the newest picture is sent when there is a credit, the others are dropped{busy}."""

    live = True

    def __init__(self, grabber: Grabber, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._grabber = grabber
        self._first_seq = 0
        self._next_number = self._grabbed = 0
        self._base_window = self.window.size

    @property
    def wait_s(self) -> float:
        """Wait: the grabber wakes the loop."""
        return BEAT_S

    @property
    def note(self) -> str:
        """What the grabber has to say: the camera is lost."""
        return self._grabber.note

    def synchronise(self) -> None:
        """Go on at the next seq and close what a predecessor left open."""
        previous = self._heartbeat.previous
        known = int(previous.report.get("next_seq", 0)) if previous else 0
        self._first_seq = max(known, self.window.next_seq)
        self.window.adopt(self.window.durable.gaps(0, self._first_seq - 1), "capture_restart")

    def capture(self, now_ns: int) -> Iterable[Message]:
        """Send the newest picture if there is one and a credit; count what went by."""
        self._grabber.drain()
        if self._grabber.grabbed != self._grabbed:
            self._grabbed, self._picture_ns = self._grabber.grabbed, now_ns
        if self._roster is not None:  # those at work: a credit for one that still starts would only wait
            at_work = sum(name.startswith(f"{Service.CLASSIFIER}.") for name in self._roster.ready)
            self.window.size = self._base_window + max(0, at_work - 1)
        ended = self._grabber.ended  # asked first: the last picture comes before the end
        out: list[Message] = []
        if self.window.has_credit and (shot := self._grabber.newest()) is not None:
            seq = self._first_seq + shot.number
            if shot.number > self._next_number:
                self.window.drop(self._first_seq + self._next_number, seq - 1, "busy")
            self._next_number = shot.number + 1
            waited_ns = max(0, time.monotonic_ns() - shot.captured_ns)
            out.append(self.send_frame(seq, shot.image, "", shot.captured_ns, waited_ns, 0))
        if ended and (self.window.has_credit or self._next_number == self._grabber.grabbed):
            self._end()
        return out

    def _end(self) -> None:
        if self._grabber.error is not None:
            raise self._grabber.error
        if not self._grabber.grabbed:
            raise SourceError(f"camera {self.camera.name} gave no picture")
        self.exhausted = True

    def _watch_ages(self, now_ns: int) -> None:
        """Close frames at their deadline."""
        deadline_ns = self._settings.deadline_s * 1e9
        for seq, held in self.window.held.items():
            if not held.closing and now_ns - held.frame.captured_ns > deadline_ns:
                self.window.give_up(seq, "deadline")
