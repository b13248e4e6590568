"""Acknowledgements and the roster in; frames, closings and questions out; pixels into the ring."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable

import numpy as np

from derma_capture.slots import Slots
from derma_capture.wallclock import WallClock
from derma_capture.window import CreditWindow
from derma_common.heartbeat import Heartbeat
from derma_common.messages import Ack, Ask, Frame, Message, Roster
from derma_common.preprocess import Image
from derma_common.settings import Camera, CaptureSettings
from derma_common.stage import BEAT_S
from derma_common.telemetry import Conservation, Metrics
from derma_common.topology import Service
from derma_common.tracing import Head

log = logging.getLogger(__name__)
ASK_EVERY_NS = 100_000_000
CLOSE_EVERY_NS = 50_000_000
LONGEST_NOTE = 500
SILENT_AFTER_NS = 2_000_000_000  # a live source without a picture for so long is said to be silent


class CaptureStage:
    """One camera's frames, from the source to their durable outcome. Subclasses know how pictures come."""

    live = False

    def __init__(
        self, camera: Camera, settings: CaptureSettings, window: CreditWindow, slots: Slots, detector: str,
        poison_deaths: int, heartbeat: Heartbeat, metrics: Metrics, head: Head | None = None,
    ) -> None:  # fmt: skip
        """`detector` is the instance that this camera belongs to."""
        self.camera, self.window = camera, window
        self._settings, self._slots, self._detector = settings, slots, detector
        self._poison_deaths = poison_deaths
        self._heartbeat, self._metrics, self._head = heartbeat, metrics, head
        self._clock = WallClock()
        self._roster: Roster | None = None
        self._lost: dict[str, int] = {}  # losses that were answered with a retry
        self._asked_ns = self._closed_ns = 0
        self._ready_ns = time.monotonic_ns()  # since when it could send if it had a credit
        self._picture_ns = self._ready_ns  # when a live source last gave a picture
        self._latencies: deque[int] = deque(maxlen=200)
        self._resend: list[int] = []
        self.leaving = False
        self.exhausted = False
        self.snapshot = Conservation(camera.name)

    @property
    def finished(self) -> bool:
        """Whether no picture will come and every frame has its durable outcome."""
        return (self.exhausted or self.leaving) and self.window.idle

    @property
    def wait_s(self) -> float:
        """Do not wait while there is a credit to use."""
        return 0.0 if self._wants_picture and self.window.has_credit else BEAT_S

    @property
    def _wants_picture(self) -> bool:
        return not self.exhausted and not self.leaving

    def handle(self, message: Message) -> Iterable[Message]:
        """Take in an acknowledgement of this camera or the supervisor's roster."""
        match message:
            case Ack() if message.camera == self.camera.name:
                self._acknowledge(message)
            case Roster():
                self._call_roll(message)
        return ()

    def _acknowledge(self, ack: Ack) -> None:
        first = not self.window.synchronised
        now_ns = time.monotonic_ns()
        for frame in self.window.acknowledge(ack):
            self._slots.release(frame.handle)
            self._latencies.append(now_ns - frame.sent_ns)
        if first:
            self._ready_ns = now_ns
            self.synchronise()
        for seq, attempt in ack.torn:
            held = self.window.held.get(seq)
            if held is not None and held.frame.attempt == attempt and seq not in self._resend:
                log.warning("%s %d was torn under a reader, sending it again", self.camera.name, seq)
                self._resend.append(seq)

    def synchronise(self) -> None:
        """Act on the first statement of what is durable."""

    def _call_roll(self, roster: Roster) -> None:
        """Send again what may have been lost with a process, once its successor can take it."""
        self._roster = roster
        self._lost = {instance: n for instance, n in self._lost.items() if instance in roster.losses}
        for suspect in roster.suspects:
            poisoned = suspect.camera == self.camera.name and suspect.deaths >= self._poison_deaths
            if poisoned and suspect.seq in self.window.held:
                self.window.give_up(suspect.seq, "poison")
        for instance, losses in roster.losses.items():
            if losses > self._lost.get(instance, 0) and self._may_have_lost_ours(instance, roster):
                self._lost[instance] = losses
                self._resend = [s for s, h in self.window.held.items() if not h.closing]

    def _may_have_lost_ours(self, instance: str, roster: Roster) -> bool:
        """Say whether a dead instance held frames of this camera that can be sent again now."""
        match instance.split(".", 1)[0]:
            case Service.CLASSIFIER:
                return True  # the detector gives its crops to others, or keeps them until there is one
            case Service.DETECTOR:
                return instance == self._detector and instance in roster.ready
            case Service.SINK:
                return instance in roster.ready
            case _:
                return False

    def tick(self, now_ns: int) -> Iterable[Message]:
        """Ask, close, retry, and capture when there is a credit."""
        out: list[Message] = []
        if not self.window.synchronised:
            if now_ns - self._asked_ns >= ASK_EVERY_NS:
                self._asked_ns = now_ns
                out.append(Ask(self.camera.name))
            return out
        self._watch_ages(now_ns)
        out += [self.window.resend(seq, now_ns) for seq in self._resend if seq in self.window.held]
        self._resend = []
        if self._wants_picture:
            out += self.capture(now_ns)
        if now_ns - self._closed_ns >= CLOSE_EVERY_NS:
            self._closed_ns = now_ns
            out += self.window.closings()
        self._report(now_ns)
        return out

    def capture(self, now_ns: int) -> Iterable[Message]:
        """Take pictures from the source as far as credits allow."""
        raise TypeError("a capture stage is recorded or live")

    def _watch_ages(self, now_ns: int) -> None:
        """Send again, as a last resort, what nobody answered for."""
        if not self.window.held:
            return
        oldest_ns = min(held.frame.sent_ns for held in self.window.held.values())
        if now_ns - oldest_ns <= self._settings.retry_after_s * 1e9:
            return
        p99_ns = float(np.percentile(self._latencies, 99)) if len(self._latencies) > 20 else 0.0
        patience_ns = max(self._settings.retry_after_s * 1e9, 20 * p99_ns)
        for seq, held in self.window.held.items():
            if not held.closing and now_ns - held.frame.sent_ns > patience_ns and seq not in self._resend:
                log.warning(
                    "%s %d has no outcome after %.0f s, sending it again",
                    self.camera.name,
                    seq,
                    patience_ns / 1e9,
                )
                self._resend.append(seq)

    def send_frame(self, seq: int, image: Image, origin: str, captured_ns: int, wait_ns: int, service_ns: int) -> Frame:
        """Write a picture (H, W, 3) uint8 BGR into the ring and use a credit for it."""
        writing_ns = time.monotonic_ns()
        handle = self._slots.write(image, self.window.size)
        now_ns = time.monotonic_ns()
        service_ns += now_ns - writing_ns
        frame = Frame(
            self.camera.name, seq, self.window.attempt, captured_ns, self._clock.at(captured_ns), handle, origin,
            wait_ns, service_ns, now_ns, self._head.context(seq, self.window.attempt) if self._head else b"",
        )  # fmt: skip
        self.window.take(frame)
        if self._head:
            self._head.captured(frame)
        self._metrics.wait.observe(wait_ns / 1e9)
        self._metrics.service.observe(service_ns / 1e9)
        self._heartbeat.handled += 1
        return frame

    def _report(self, now_ns: int) -> None:
        terms = self.window.terms()
        slots, free = self._slots.counts
        oldest = min((h.frame.captured_ns for h in self.window.held.values()), default=now_ns)
        self.snapshot = Conservation(
            self.camera.name, terms.captured, terms.delivered, terms.dropped, terms.in_flight, slots, free,
            (now_ns - oldest) / 1e9, self.window.size, self._state(now_ns), self.live, self._picture_ns,
        )  # fmt: skip
        self._heartbeat.report(
            captured=terms.captured, delivered=terms.delivered, dropped=terms.dropped, in_flight=terms.in_flight,
            next_seq=self.window.next_seq, ended=self.finished and not self.leaving,
            note=self.note[:LONGEST_NOTE].encode(errors="replace").decode(),
        )  # fmt: skip

    @property
    def note(self) -> str:
        """What a person should know of the source now."""
        return ""

    def _state(self, now_ns: int) -> str:
        if self.exhausted:
            return "ended"
        return "silent" if self.live and now_ns - self._picture_ns > SILENT_AFTER_NS else "reading"

    def leave(self) -> None:
        """Take no more pictures; what is in flight is finished."""
        self.leaving = True
