"""Some crops of a frame in, their calibrated probabilities out; and the statement of how much more may come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from derma_common.inference.classification import Classifier
from derma_common.messages import Capacity, Classifications, Crops, Farewell, Message
from derma_common.preprocess import cut
from derma_common.rings import RingReader
from derma_common.stage import BEAT_S
from derma_common.topology import instance_of

STATE_EVERY_NS = 250_000_000
FAREWELL_WITHIN_NS = 2_000_000_000  # a detector that does not confirm by then is dead


class ClassifierStage:
    """Classifies crops and states its capacity to every detector."""

    wait_s = BEAT_S

    def __init__(
        self, classifier: Classifier, rings: RingReader, worker: str, room: int, detectors: Iterable[str]
    ) -> None:
        """`detectors` are the instances that may send work; `room` is what each may have outstanding here."""
        self._classifier, self._rings = classifier, rings
        self._worker, self._room = worker, room
        self._finished: dict[str, int] = {}  # by owner; a detector's successor starts at none
        self._farewells: dict[str, Farewell | None] = dict.fromkeys(detectors)
        self._leaving_since_ns: int | None = None
        self._stated_ns = 0

    @property
    def finished(self) -> bool:
        """Whether it is leaving and every detector confirmed that all it sent was finished."""
        if self._leaving_since_ns is None:
            return False
        confirmed = all(f is not None and f.sent == self._finished.get(f.owner, 0) for f in self._farewells.values())
        return confirmed or time.monotonic_ns() - self._leaving_since_ns > FAREWELL_WITHIN_NS

    def handle(self, message: Message) -> Iterable[Message]:
        """Classify the crops of a work message. Raises StaleHandle when the pixels are gone."""
        if isinstance(message, Farewell):
            self._farewells[instance_of(message.owner)] = message
            return []
        if not isinstance(message, Crops):
            return []
        try:
            result = self._classify(message)
        finally:
            self._count(message)
        return [result, self._capacity()]

    def _classify(self, work: Crops) -> Classifications:
        started_ns = time.monotonic_ns()
        frame, card = work.frame, self._classifier.card
        with self._rings.picture(frame.handle) as image:
            crops = [cut(image, square, card.input.width) for square in work.squares]
        rows = self._classifier.classify(crops)
        return Classifications(
            frame.camera, frame.seq, frame.attempt, work.first,
            tuple(tuple(float(p) for p in row) for row in rows), card.classes, card.id, self._worker,
            work.queued_ns, started_ns, time.monotonic_ns(), frame.trace,
        )  # fmt: skip

    def _count(self, work: Crops) -> None:
        if work.owner not in self._finished:  # a predecessor of this owner is dead: nobody asks for its count
            for owner in [o for o in self._finished if instance_of(o) == instance_of(work.owner)]:
                del self._finished[owner]
        self._finished[work.owner] = self._finished.get(work.owner, 0) + len(work.squares)

    def tick(self, now_ns: int) -> Sequence[Message]:
        """State the capacity a few times a second."""
        if now_ns - self._stated_ns < STATE_EVERY_NS:
            return ()
        return [self._capacity()]

    def _capacity(self) -> Capacity:
        self._stated_ns = time.monotonic_ns()
        room = 0 if self._leaving_since_ns is not None else self._room
        return Capacity(self._worker, room, dict(self._finished))

    def leave(self) -> None:
        """Ask for no more and finish what was sent."""
        self._leaving_since_ns = time.monotonic_ns()
        self._stated_ns = 0  # say so at the next tick
