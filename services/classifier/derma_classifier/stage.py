"""Some crops of a frame in, their calibrated probabilities out; and the statement of how much more may come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from derma_common.inference.classification import Classifier
from derma_common.messages import Classifications, Crops, Farewell, Message
from derma_common.rings import RingReader
from derma_common.stage import BEAT_S
from derma_common.workclaim import WorkClaim


class ClassifierStage:
    """Classifies crops and states its capacity to every detector."""

    wait_s = BEAT_S

    def __init__(
        self, classifier: Classifier, rings: RingReader, worker: str, room: int, detectors: Iterable[str]
    ) -> None:
        """`detectors` are the instances that may send work; `room` is what each may have outstanding here."""
        self._classifier, self._rings = classifier, rings
        self._worker, self._room = worker, room
        self._claim = WorkClaim(worker, detectors)

    @property
    def finished(self) -> bool:
        """Whether it is leaving and every detector confirmed that all it sent was finished."""
        return self._claim.released

    def handle(self, message: Message) -> Iterable[Message]:
        """Classify the crops of a work message. Raises StaleHandle when the pixels are gone."""
        if isinstance(message, Farewell):
            self._claim.confirmed(message)
            return []
        if not isinstance(message, Crops):
            return []
        try:
            result = self._classify(message)
        finally:
            self._claim.finished(message.owner, len(message.squares))
        return [result, self._claim.statement(self._room, time.monotonic_ns())]

    def _classify(self, work: Crops) -> Classifications:
        started_ns = time.monotonic_ns()
        frame, card = work.frame, self._classifier.card
        with self._rings.picture(frame.handle) as image:
            rows = self._classifier.classify_squares(image, work.squares)
        return Classifications(
            frame.camera, frame.seq, frame.attempt, work.first,
            tuple(tuple(float(p) for p in row) for row in rows), card.classes, card.id, self._worker,
            work.queued_ns, started_ns, time.monotonic_ns(), frame.trace,
        )  # fmt: skip

    def tick(self, now_ns: int) -> Sequence[Message]:
        """State the capacity a few times a second."""
        return [self._claim.statement(self._room, now_ns)] if self._claim.is_due(now_ns) else []

    def leave(self) -> None:
        """Ask for no more and finish what was sent."""
        self._claim.leave()
