"""Host of a stage: receives, times, calls, publishes, beats. The stage itself is one function of a message.

`run()` is a loop around the public `step()`; tests call `step()`. Signal handlers only record; the loop acts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from derma_common.errors import InvalidMessage, StaleHandle
from derma_common.heartbeat import Heartbeat
from derma_common.logs import FRAME
from derma_common.messages import Classifications, Crops, Detections, Frame, Message, Torn
from derma_common.telemetry import Metrics
from derma_common.tracing import Tracer
from derma_common.transport import Hub, Link

log = logging.getLogger(__name__)
BEAT_S = 0.1  # the longest that an idle loop waits


class Stage(Protocol):
    """A step of the pipeline."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do for good."""
        ...

    @property
    def wait_s(self) -> float:
        """How long the loop may wait for messages before the next tick."""
        ...

    def handle(self, message: Message) -> Iterable[Message]:
        """Work on one message and return what it leads to. Raises StaleHandle when its pixels are gone."""
        ...

    def tick(self, now_ns: int) -> Iterable[Message]:
        """Do what time demands, at every turn of the loop."""
        ...

    def leave(self) -> None:
        """Take nothing new; `finished` becomes true when all in hand is done."""
        ...


class Stop:
    """What a signal leaves behind for the loop."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, *_: object) -> None:
        """Remember that the process was asked to leave (a signal handler)."""
        self.asked = True


class Orphaned(Exception):
    """The supervisor is gone: leave at once."""


class StageHost:
    """The loop around a stage."""

    def __init__(
        self,
        stage: Stage,
        hub: Hub,
        inputs: Mapping[Link, int],  # link → how many messages to take at a turn
        routes: Mapping[type, Sequence[Link]],
        heartbeat: Heartbeat,
        metrics: Metrics,
        stop: Stop,
        alive_fd: int = -1,
        tracer: Tracer | None = None,
    ) -> None:
        self._stage, self._hub, self._inputs, self._routes = stage, hub, inputs, routes
        self._heartbeat, self._metrics, self._stop = heartbeat, metrics, stop
        self._alive_fd, self._tracer = alive_fd, tracer
        self._left = False
        self._complained_ns = 0
        if alive_fd >= 0:
            hub.watch(alive_fd)

    def run(self) -> None:
        """Turn until the stage is finished. Raises Orphaned when the supervisor's pipe closes."""
        while self.step():
            pass

    def step(self) -> bool:
        """Wait for messages or the next tick and do one turn; False when the stage is finished."""
        fired = self._hub.wait(min(self._stage.wait_s, BEAT_S))
        if self._alive_fd in fired:
            raise Orphaned
        if self._stop.asked and not self._left:
            self._left = True
            self._heartbeat.state = "leaving"
            self._stage.leave()
        self._beat()
        for link, limit in self._inputs.items():
            for message in link.receive(limit):
                if isinstance(message, InvalidMessage):
                    self._count_invalid(message)
                else:
                    self._handle(message)
        self._send(self._stage.tick(time.monotonic_ns()))
        return not self._stage.finished

    def _beat(self) -> None:
        self._heartbeat.beat()

    def _handle(self, message: Message) -> None:
        stamp = _stamp(message)
        if stamp is None:
            self._send(self._stage.handle(message))
            return
        camera, seq, attempt, sent_ns = stamp
        started_ns = time.monotonic_ns()
        self._metrics.wait.observe(max(0, started_ns - sent_ns) / 1e9)
        self._heartbeat.doing(camera, seq)
        FRAME.set((camera, seq, attempt))
        span, problem = None, ""
        if self._tracer is not None and isinstance(message, Frame | Crops):
            message, span = self._tracer.begin(message, started_ns - sent_ns, started_ns)
        try:
            self._send(self._stage.handle(message))
        except StaleHandle as error:
            problem = "the pixels were gone"
            self._metrics.stale.inc()
            self._complain(logging.INFO, str(error))
            self._send([Torn(camera, seq, attempt, type(self._stage).__name__)])
        FRAME.set(None)  # not when handle raised: what is logged of that belongs to the frame
        self._heartbeat.done()
        ended_ns = time.monotonic_ns()
        self._metrics.service.observe((ended_ns - started_ns) / 1e9)
        if span is not None:
            span.end(ended_ns, problem)

    def _send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            for link in self._routes[type(message)]:
                if not link.send(message):
                    log.warning("%s could not be sent on %s", type(message).__name__, link.topic.name)

    def _count_invalid(self, error: InvalidMessage) -> None:
        self._metrics.invalid.inc()
        self._complain(logging.WARNING, f"invalid message: {error}")

    def _complain(self, level: int, text: str) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._complained_ns > 1_000_000_000:  # what comes in masses must not fill the disk with log lines
            self._complained_ns = now_ns
            log.log(level, "%s", text)


def _stamp(message: Message) -> tuple[str, int, int, int] | None:
    """Return camera, seq, attempt and the time of sending of a message that is work on a frame."""
    match message:
        case Frame():
            return message.camera, message.seq, message.attempt, message.sent_ns
        case Crops():
            return message.frame.camera, message.frame.seq, message.frame.attempt, message.queued_ns
        case Detections():
            return message.frame.camera, message.frame.seq, message.frame.attempt, message.done_ns
        case Classifications():
            return message.camera, message.seq, message.attempt, message.done_ns
        case _:
            return None
