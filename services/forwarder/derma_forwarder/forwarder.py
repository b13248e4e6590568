"""Store and forward: one turn at a time, from the outbox to the streams and from the opinions to the store.

An entry's id is the outbox' epoch and the row's id, so what is sent again after a lost answer, a crash or a reboot is
refused by Redis as known. A row leaves the outbox only after Redis has answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from derma_common.back_off import BackOff
from derma_common.cloud.entries import PRIORITIES, Opinion, unpack
from derma_common.cloud.streams import Delivery, Line, LineDown, findings_key, opinions_key, order, pictures_key
from derma_common.errors import InvalidMessage
from derma_common.outbox import OpinionRow, Outbox, Waiting
from derma_forwarder.content import Content, Unsendable

log = logging.getLogger(__name__)

BATCH = 256
BATCH_BYTES = 4 << 20
ATTEMPTS = 5  # of a row that Redis refuses while it takes others
IDLE_S = 0.2
FETCH_EVERY_S = 1.0  # while nothing comes
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
EXPIRE_EVERY_S = 60.0


class SiteTaken(LineDown):
    """The site's name belongs to another machine or data folder."""


@dataclass(slots=True)
class Tally:
    """What a forwarder did since its start."""

    sent: dict[str, int] = field(default_factory=lambda: {"findings": 0, "picture": 0})
    quarantined: int = 0
    opinions: int = 0
    invalid_opinions: int = 0
    failures: int = 0
    connected: bool = False
    problem: str = ""


class Forwarder:
    """Owns the line to Redis; only `turn` uses it."""

    def __init__(
        self,
        outbox: Outbox,
        content: Content,
        connect: Callable[[], Line],
        site: str,
        identity: str,
        longest_age_s: float = 0.0,
        delay: Callable[[Waiting], None] = lambda row: None,
    ) -> None:
        """`longest_age_s`: what waits longer is given up, 0: never. `delay` is told of each row that was sent."""
        self._outbox, self._content, self._connect = outbox, content, connect
        self._site, self._identity, self._longest_age_s, self._delay = site, identity, longest_age_s, delay
        self._line: Line | None = None
        self._back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S)
        self._expired_at = self._fetched_at = -EXPIRE_EVERY_S
        self.tally = Tally()

    def turn(self) -> float:
        """Send and fetch what there is; return the seconds until the next turn is worth it."""
        self._expire()
        try:
            line = self._line or self._begin()
            busy = self._send(line)
            busy |= self._fetch(line)
        except LineDown as error:
            return self._down(error)
        self._back_off.worked()
        return 0.0 if busy else IDLE_S

    def _begin(self) -> Line:
        """Open the line, and make sure that the ids that we shall give are new to the streams."""
        line = self._connect()
        try:
            owner = line.owner(self._site, self._identity)
            if owner != self._identity:
                raise SiteTaken(
                    f"the site {self._site!r} belongs to another machine or data folder: choose another cloud.site, or "
                    "take it over with `derma outbox claim`"
                )
            line.register(self._site)
            keys = [key(self._site, p) for key in (findings_key, pictures_key) for p in PRIORITIES]
            newest = max((order(line.last_id(key)) for key in keys), default=(0, 0))
        except LineDown:
            line.close()
            raise
        if newest > (self._outbox.epoch_ms, self._outbox.newest_id):  # an older copy of the database, or a new one
            self._outbox.begin_epoch(max(newest[0] + 1, time.time_ns() // 1_000_000))
            log.warning("the streams are ahead of this database: it goes on under ids of a new epoch")
        log.info("the line to the cloud is up, %d entries wait", sum(t.rows for t in self._outbox.totals().values()))
        self._line, self.tally.connected, self.tally.problem = line, True, ""
        return line

    def _down(self, error: LineDown) -> float:
        if self._line is not None:
            self._line.close()
        text = f"{type(error).__name__}: {error}"
        if text != self.tally.problem:  # once, not at every attempt of a day
            log.warning("the line to the cloud is down, all is kept: %s", text)
        self._line, self.tally.connected, self.tally.problem = None, False, text
        self.tally.failures += 1
        return self._back_off.failed()

    def _send(self, line: Line) -> bool:
        rows, entries, size = list[Waiting](), list[tuple[str, str, bytes]](), 0
        epoch_ms = self._outbox.epoch_ms
        for row in self._outbox.first(BATCH):
            if size and size + row.bytes > BATCH_BYTES:
                break
            try:
                data = self._content.entry(row)
            except Unsendable as error:
                self._refused(row, str(error), 1)
                continue
            rows.append(row)
            entries.append((self._content.stream(row), f"{epoch_ms}-{row.id}", data))
            size += len(data)
        if not rows:
            return False
        answers = line.send(entries)
        sent = [row for row, answer in zip(rows, answers, strict=True) if not answer]
        self._outbox.sent(sent)
        for row in sent:
            self.tally.sent[row.kind] += 1
            self._delay(row)
        for row, answer in zip(rows, answers, strict=True):
            if answer:
                self._refused(row, answer, ATTEMPTS)
        return True

    def _refused(self, row: Waiting, why: str, attempts: int) -> None:
        if self._outbox.refused(row, why, attempts):
            self.tally.quarantined += 1
            log.warning("outbox entry %d (%s) set aside: %s", row.id, row.kind, why)

    def _fetch(self, line: Line) -> bool:
        now = time.monotonic()
        if now - self._fetched_at < FETCH_EVERY_S:
            return False
        key = opinions_key(self._site)
        deliveries = line.read({key: self._outbox.opinions_after}, BATCH, 0.0)
        if not deliveries:
            self._fetched_at = now
            return False
        self._outbox.add_opinions(self._opinions(deliveries), deliveries[-1].id, time.time_ns())
        line.forget(key, deliveries[-1].id)
        return True

    def _opinions(self, deliveries: Sequence[Delivery]) -> list[OpinionRow]:
        rows = []
        for delivery in deliveries:
            try:
                o: Opinion = unpack(delivery.data, Opinion)
            except InvalidMessage as error:
                self.tally.invalid_opinions += 1
                log.warning("invalid opinion %s: %s", delivery.id, error)
                continue
            self.tally.opinions += 1
            rows.append(
                OpinionRow(
                    o.run, o.camera, o.seq, o.number, o.models, o.method, o.probabilities, o.worker, o.wall_ns,
                    o.service_ns,
                )
            )  # fmt: skip
        return rows

    def _expire(self) -> None:
        now = time.monotonic()
        if self._longest_age_s and now - self._expired_at >= EXPIRE_EVERY_S:
            self._expired_at = now
            given_up = self._outbox.expire(time.time_ns() - round(self._longest_age_s * 1e9))
            if given_up:
                days = self._longest_age_s / 86400
                log.warning("%d entries waited longer than %g days and were given up", given_up, days)

    def close(self) -> None:
        """Close the line."""
        if self._line is not None:
            self._line.close()
