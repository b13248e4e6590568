"""The loop of every worker that answers stream entries: take, work, answer and acknowledge at once, tidy up.

At least once: an entry is acknowledged together with its answer, so what a dead worker held is taken over by another
after `idle_s`. Such entries are worked on one at a time, so that one that kills its workers falls alone; after
MAX_DELIVERIES it becomes a dead letter. What the work is, this file does not know.
"""

from __future__ import annotations

import faulthandler
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from derma_common.cloud.streams import Delivery, Line, LineDown
from derma_common.errors import InvalidMessage
from derma_common.stage import Stop
from derma_common.workers.letters import DeadLetters
from derma_common.workers.metrics import WorkerMetrics
from derma_common.workers.retry import keep_trying

log = logging.getLogger(__name__)
Entry = TypeVar("Entry")
Taken = tuple[Delivery, Entry]
MAX_DELIVERIES = 5
KEYS_AT_ONCE = 64  # streams looked through for abandoned entries at a time
WAIT_S = 1.0  # for new entries; also how late a worker notices that it is asked to leave
TRIM_EVERY_S = 5.0
FIND_EVERY_S = 15.0  # new streams of new sites


class Work(Protocol[Entry]):
    """What is done with entries."""

    def keys(self, line: Line) -> list[list[str]]:
        """Return the streams to serve, the most urgent ones in the first list."""
        ...

    def open(self, delivery: Delivery) -> Entry:
        """Return what is in an entry. Raises InvalidMessage when nobody can work on it."""
        ...

    def answer(self, line: Line, taken: Sequence[Taken[Entry]]) -> list[tuple[str, bytes]]:
        """Work on entries and return the answers as (key, data)."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """How a group shares its entries."""

    group: str
    count: int  # entries taken at once
    idle_s: float  # an entry that a worker has held for so long may be taken over: at least twice the service time


class Consumer(Generic[Entry]):
    """A member of a group. `worker` is a name that nobody else has or had."""

    def __init__(self, line: Line, worker: str, work: Work[Entry], terms: Terms, metrics: WorkerMetrics) -> None:
        self._line, self._worker, self._work, self._terms, self._metrics = line, worker, work, terms, metrics
        self._letters = DeadLetters(line, terms.group, metrics)
        self._ranks: list[list[str]] = []
        self._joined: set[str] = set()
        self._answered: set[str] = set()  # streams with something to trim
        self._random = random.Random(worker)
        self._due = {"find": 0.0, "take over": 0.0, "trim": time.monotonic() + TRIM_EVERY_S}

    def run(self, stop: Stop) -> None:
        """Work until asked to stop, then finish what is in hand and leave the groups.

        Raises ResourceError when Redis refuses us from the first.
        """
        keep_trying(lambda: self.step(WAIT_S), self._start_anew, stop, self._metrics)
        self._leave()

    def _start_anew(self) -> None:
        self._due["find"] = 0.0
        self._joined.clear()  # Redis may have come back without its groups

    def step(self, wait_s: float) -> int:
        """Do one turn; return how many entries it was about. Raises LineDown."""
        if self._is_due("find", FIND_EVERY_S):
            self._find()
        abandoned = self._take_over()
        self._handle(abandoned)
        taken = self._take(0.0 if abandoned else wait_s)
        self._handle(taken)
        if self._is_due("trim", TRIM_EVERY_S):
            while self._answered:
                self._line.trim(self._answered.pop())
        return len(abandoned) + len(taken)

    # -- taking ----------------------------------------------------------------------------------------------------

    def _find(self) -> None:
        self._ranks = self._work.keys(self._line)
        for key in (key for rank in self._ranks for key in rank):
            if key not in self._joined:
                self._line.join(key, self._terms.group)
                self._joined.add(key)

    def _take(self, wait_s: float) -> list[Delivery]:
        """Take entries of the most urgent streams that have any; wait only when none has."""
        looked = [share for rank in self._ranks for share in self._shares(rank)]
        for keys, count in looked if len(looked) > 1 else ():
            taken = self._line.take(self._terms.group, self._worker, keys, count, 0.0)
            if taken:
                return taken
        keys = [key for rank in self._ranks for key in rank]
        if not keys:
            time.sleep(min(wait_s, 0.1))
            return []
        count = self._terms.count if len(keys) == 1 else 1
        return self._line.take(self._terms.group, self._worker, keys, count, wait_s)

    def _shares(self, keys: list[str]) -> Iterator[tuple[list[str], int]]:
        """Split streams so that one command, which counts per stream, takes no more than a batch; in any order."""
        shuffled = self._random.sample(keys, len(keys))
        for start in range(0, len(keys), self._terms.count):
            share = shuffled[start : start + self._terms.count]
            yield share, self._terms.count // len(share)

    def _take_over(self) -> list[Delivery]:
        """Take one entry that its worker has left alone, if there is any."""
        if time.monotonic() < self._due["take over"]:
            return []
        joined = sorted(self._joined)
        for key in self._random.sample(joined, min(len(joined), KEYS_AT_ONCE)):
            taken = self._line.take_over(self._terms.group, self._worker, key, self._terms.idle_s, 1)
            if taken:
                self._metrics.taken_over.inc()
                return taken  # and look again at the next turn
        self._due["take over"] = self._later(self._terms.idle_s / 4)
        return []

    # -- working ---------------------------------------------------------------------------------------------------

    def _handle(self, deliveries: Sequence[Delivery]) -> None:
        taken: list[Taken[Entry]] = []
        for delivery in deliveries:
            self._answered.add(delivery.key)
            if delivery.times > MAX_DELIVERIES:
                self._letters.bury(delivery, "poison", f"delivered {delivery.times} times and never answered")
                continue
            try:
                taken.append((delivery, self._work.open(delivery)))
            except InvalidMessage as error:
                self._letters.bury(delivery, "invalid", str(error))
        if taken:
            started = time.monotonic()
            with self._watched():
                answers = self._work.answer(self._line, taken)
                self._line.answer(self._terms.group, [delivery for delivery, _ in taken], answers)
            self._served(time.monotonic() - started)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End this process, with its stacks on stderr, when the work hangs: others have taken it over by then."""
        faulthandler.dump_traceback_later(max(1.0, 2 * self._terms.idle_s), exit=True)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _served(self, took_s: float) -> None:
        self._metrics.service.observe(took_s)
        if took_s > self._terms.idle_s / 2:
            log.warning(
                "a batch took %.1f s: others may take over what is still worked on after %.1f s; take less at once "
                "(--count) or wait longer (--idle)", took_s, self._terms.idle_s,
            )  # fmt: skip

    # -- the rest --------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        try:
            for key in sorted(self._joined):
                self._line.leave(key, self._terms.group, self._worker)
        except LineDown as error:
            log.info("left without saying so: %s", error)

    def _is_due(self, what: str, every_s: float) -> bool:
        if time.monotonic() < self._due[what]:
            return False
        self._due[what] = self._later(every_s)
        return True

    def _later(self, about_s: float) -> float:
        return time.monotonic() + about_s * self._random.uniform(0.5, 1.5)  # so that workers do not march in step
