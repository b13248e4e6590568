"""Carries crops to Redis and answers back, in threads of its own: a dead line must not stop the loop.

The loop hands jobs in with `post` and takes what has happened out with `collect`; `fd` is readable when there is any.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from derma_common.back_off import BackOff
from derma_common.cloud.entries import CropJob, JobResult, pack, unpack
from derma_common.cloud.streams import Line, LineDown, jobs_key, order, results_key
from derma_common.errors import InvalidMessage

log = logging.getLogger(__name__)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
BATCH = 256
READ_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Unsent:
    """Jobs that did not reach Redis."""

    jobs: tuple[str, ...]


class Courier:
    """Two connections: one sends, one waits for answers."""

    def __init__(self, connect: Callable[[], Line], site: str, sha256: str) -> None:
        """`sha256` of the model's file names the workers that the jobs are for."""
        self._connect, self._jobs, self._results = connect, jobs_key(sha256), results_key(site)
        self._outgoing: queue.SimpleQueue[CropJob] = queue.SimpleQueue()
        self._happened: queue.SimpleQueue[JobResult | Unsent] = queue.SimpleQueue()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.up = False  # answers can be heard
        self.failures = 0
        self._closed = threading.Event()
        for work in (self._send_all, self._hear_all):
            threading.Thread(target=work, daemon=True, name=work.__name__).start()

    def post(self, jobs: Sequence[CropJob]) -> None:
        """Send jobs, soon."""
        for job in jobs:
            self._outgoing.put(job)

    def collect(self) -> list[JobResult | Unsent]:
        """Return what has happened since the last call."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        found = []
        while True:
            try:
                found.append(self._happened.get_nowait())
            except queue.Empty:
                return found

    def _tell(self, happened: JobResult | Unsent) -> None:
        self._happened.put(happened)
        os.eventfd_write(self.fd, 1)

    def _send_all(self) -> None:
        line: Line | None = None
        while not self._closed.is_set():
            jobs = [self._outgoing.get()]
            while len(jobs) < BATCH and not self._outgoing.empty():
                jobs.append(self._outgoing.get())
            try:
                line = line or self._connect()
                refused = line.send([(self._jobs, "*", pack(job)) for job in jobs], new_streams=False)
            except LineDown as error:
                log.info("crops could not be sent: %s", error)
                if line is not None:
                    line.close()
                line = None
                refused = ["line down"] * len(jobs)
            lost = tuple(job.job for job, why in zip(jobs, refused, strict=True) if why)
            if lost:
                self._tell(Unsent(lost))

    def _hear_all(self) -> None:
        line: Line | None = None
        after, back_off = "", BackOff(FIRST_WAIT_S, LONGEST_WAIT_S)
        while not self._closed.is_set():
            try:
                if line is None:
                    line = self._connect()
                    after = _start(after, line.last_id(self._results))
                deliveries = line.read({self._results: after}, BATCH, READ_WAIT_S)
                if deliveries:
                    after = deliveries[-1].id
                    line.forget(self._results, after)
            except LineDown as error:
                if self.up or not self.failures:
                    log.warning("no remote classifiers, the line is down: %s", error)
                if line is not None:
                    line.close()
                self.up, self.failures, line = False, self.failures + 1, None
                self._closed.wait(back_off.failed())
                continue
            self.up = True
            back_off.worked()
            for delivery in deliveries:
                try:
                    self._tell(unpack(delivery.data, JobResult))
                except InvalidMessage as error:
                    log.warning("invalid answer %s: %s", delivery.id, error)

    def close(self) -> None:
        """Stop; what is under way in a thread ends with the process."""
        self._closed.set()


def _start(after: str, newest: str) -> str:
    """Return where to read on: after what was read, unless the stream is new, or there is what a predecessor asked."""
    return after if after and order(after) <= order(newest) else newest
