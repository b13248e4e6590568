"""Capture of a source that waits for credits."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from derma_capture.stage import CaptureStage
from derma_capture.window import CreditWindow
from derma_common.messages import Message
from derma_common.recordings import Recording

log = logging.getLogger(__name__)


class RecordedCapture(CaptureStage):
    """A source that waits: no picture is read without a credit, and none is lost."""

    def __init__(self, recording: Recording, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._recording = recording
        # asked anew for each picture: what became durable meanwhile is not read again
        self._pictures = recording.pictures(_Durable(self.window))

    @property
    def note(self) -> str:
        """What the recording has to say: it is cut off."""
        return self._recording.note

    def capture(self, now_ns: int) -> Iterable[Message]:
        """Read one picture if there is a credit."""
        if not self.window.has_credit:
            return ()
        started_ns = time.monotonic_ns()
        picture = next(self._pictures, None)
        captured_ns = time.monotonic_ns()
        if picture is None:
            self.exhausted = True
            if self.note:
                log.warning("%s", self.note)
            return ()
        if picture.image is None:
            log.warning("picture %d cannot be read; which file that is, the database says", picture.seq)
            self.window.drop(picture.seq, picture.seq, "unreadable", picture.origin)
            return ()
        waited_ns, service_ns = started_ns - self._ready_ns, captured_ns - started_ns
        frame = self.send_frame(picture.seq, picture.image, picture.origin, captured_ns, waited_ns, service_ns)
        self._ready_ns = frame.sent_ns
        return [frame]


class _Durable:
    def __init__(self, window: CreditWindow) -> None:
        self._window = window

    def __contains__(self, seq: int) -> bool:
        return seq in self._window.durable
