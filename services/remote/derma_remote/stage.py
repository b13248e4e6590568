"""Crops of a frame in; each goes to whoever takes it on another machine, and its probabilities come out when they come.

To a detector this is one more classifier: it states how many crops it takes and says nothing of a network. A crop
without an answer is taken back: its frame is sent again (Torn), to whoever has room then.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from derma_common.cloud.entries import CropJob, JobResult, picture_of
from derma_common.inference.card import ModelCard
from derma_common.messages import Classifications, Crops, Farewell, Message, Torn
from derma_common.preprocess import cut
from derma_common.rings import RingReader
from derma_common.stage import BEAT_S
from derma_common.telemetry import RemoteMetrics
from derma_common.workclaim import WorkClaim
from derma_remote.breaker import Breaker
from derma_remote.courier import Courier, Unsent

NAME = "remote"


@dataclass(frozen=True, slots=True)
class _Sent:
    work: Crops
    index: int  # of the square within the work
    sent_ns: int


class RemoteStage:
    """Hands crops over and joins the answers to their frames."""

    wait_s = BEAT_S

    def __init__(
        self, courier: Courier, rings: RingReader, card: ModelCard, site: str, worker: str, room: int, within_s: float,
        detectors: Iterable[str], metrics: RemoteMetrics,
    ) -> None:  # fmt: skip
        """`worker` is this incarnation's name, `card` the classifier's that the workers must have."""
        self._courier, self._rings, self._card, self._metrics = courier, rings, card, metrics
        self._site, self._within_ns = site, round(within_s * 1e9)
        self._claim = WorkClaim(worker, detectors, rank=1)
        self._breaker = Breaker(room)
        self._sent: dict[str, _Sent] = {}  # by job, in the order of sending
        self._jobs = itertools.count()
        self._token = secrets.token_hex(8)  # nobody who has not seen a job can answer it

    @property
    def finished(self) -> bool:
        """Whether it is leaving and nothing is outstanding."""
        return self._claim.released

    def handle(self, message: Message) -> Iterable[Message]:
        """Send the crops of a work message away. Raises StaleHandle when the pixels are gone."""
        if isinstance(message, Farewell):
            self._claim.confirmed(message)
        if not isinstance(message, Crops):
            return ()
        frame, px = message.frame, self._card.input.width
        try:
            with self._rings.picture(frame.handle) as image:
                crops = [cut(image, square, px) for square in message.squares]
        except BaseException:
            self._claim.finished(message.owner, len(message.squares))
            raise
        now_ns = time.monotonic_ns()
        jobs = []
        for index, crop in enumerate(crops):
            name = f"{self._token}.{next(self._jobs)}"
            self._sent[name] = _Sent(message, index, now_ns)
            jobs.append(CropJob(self._site, name, self._card.id, self._within_ns, picture_of(crop, "raw")))
        self._courier.post(jobs)
        return ()

    def tick(self, now_ns: int) -> Iterable[Message]:
        """Join what has come back, take back what has not, and state the capacity."""
        out: list[Message] = []
        for happened in self._courier.collect():
            if isinstance(happened, Unsent):
                out += [m for job in happened.jobs for m in self._taken_back(job, "failed", now_ns)]
            else:
                out += self._answered(happened, now_ns)
        late = []
        for job, sent in self._sent.items():
            if now_ns - sent.sent_ns <= self._within_ns:
                break  # the others were sent later
            late.append(job)
        out += [m for job in late for m in self._taken_back(job, "taken_back", now_ns)]
        if out or self._claim.is_due(now_ns):
            room = self._breaker.room(now_ns) if self._courier.up else 0
            out.append(self._claim.statement(room, now_ns))
        return out

    def _answered(self, result: JobResult, now_ns: int) -> Sequence[Message]:
        if result.job not in self._sent:
            self._metrics.crops["late"].inc()
            return ()
        if result.error or result.classes != self._card.classes or result.model != self._card.id:
            return self._taken_back(result.job, "failed", now_ns)
        sent = self._sent.pop(result.job)
        self._claim.finished(sent.work.owner, 1)
        self._breaker.answered()
        self._metrics.crops["answered"].inc()
        self._metrics.seconds.observe((now_ns - sent.sent_ns) / 1e9)
        work = sent.work
        return [
            Classifications(
                work.frame.camera, work.frame.seq, work.frame.attempt, work.first + sent.index,
                (result.probabilities,), result.classes, result.model, f"{NAME}:{result.worker}", work.queued_ns,
                max(work.queued_ns, now_ns - max(0, result.service_ns)), now_ns, work.frame.trace,
            )
        ]  # fmt: skip

    def _taken_back(self, job: str, result: str, now_ns: int) -> Sequence[Message]:
        sent = self._sent.pop(job, None)
        if sent is None:
            return ()
        self._claim.finished(sent.work.owner, 1)
        self._breaker.missed(now_ns)
        self._metrics.crops[result].inc()
        frame = sent.work.frame
        return [Torn(frame.camera, frame.seq, frame.attempt, NAME)]

    def leave(self) -> None:
        """Ask for no more and wait a moment for what is outstanding."""
        self._claim.leave()

    @property
    def outstanding(self) -> int:
        """Crops that are away."""
        return len(self._sent)
