"""Hand out work to whoever asked for it: the pull side of `work`, without any socket.

A worker states absolute numbers: how many crops it finished since its start and how many it lets be
outstanding. The pool counts what it sent. So a lost or repeated statement changes nothing, and a stopped
worker holds at most the room that it offered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from derma_common.messages import Capacity, Crops


@dataclass(slots=True)
class _Worker:
    room: int = 0
    rank: int = 0
    finished: int = 0
    sent: int = 0
    heard_ns: int = 0

    def free(self) -> int:
        return self.room - (self.sent - self.finished)


class WorkPool:
    """Pending crops and the workers that may take them. Workers are known by their connection's identity."""

    def __init__(self, owner: str, silent_after_ns: int) -> None:
        """Make the pool of `owner`, an incarnation of a detector; a worker silent for so long is given nothing."""
        self.owner = owner
        self._silent_after_ns = silent_after_ns
        self._pending: deque[Crops] = deque()
        self._workers: dict[bytes, _Worker] = {}

    def put(self, work: Crops) -> None:
        """Queue work, and forget what waits on the same slot: an earlier attempt, or a frame that is closed by now.

        So what waits is bounded by the rings' slots, even when nobody takes it.
        """
        slot = _slot(work)
        if any(_slot(waiting) == slot for waiting in self._pending):
            self._pending = deque(waiting for waiting in self._pending if _slot(waiting) != slot)
        self._pending.append(work)

    def heard(self, identity: bytes, capacity: Capacity, now_ns: int) -> None:
        """Take a worker's statement."""
        worker = self._workers.setdefault(identity, _Worker())
        worker.room, worker.rank, worker.heard_ns = capacity.room, capacity.rank, now_ns
        worker.finished = capacity.finished.get(self.owner, 0)

    def sent_to(self, identity: bytes) -> int:
        """Return how many crops a worker was sent since it introduced itself."""
        worker = self._workers.get(identity)
        return worker.sent if worker else 0

    def gone(self, identity: bytes) -> None:
        """Forget a worker whose connection is gone."""
        self._workers.pop(identity, None)

    def take(self, now_ns: int) -> tuple[bytes, Crops] | None:
        """Return the next work and who gets it, split to the worker's room; None when nobody has room.

        Those of the lowest rank that have room go first, and of them the one with most room, so work spreads before
        it piles up.
        """
        if not self._pending:
            return None
        free_now = [
            (worker, identity)
            for identity, worker in self._workers.items()
            if now_ns - worker.heard_ns <= self._silent_after_ns and worker.free() > 0
        ]
        if not free_now:
            return None
        rank = min(worker.rank for worker, _ in free_now)
        candidates = [(worker.free(), identity) for worker, identity in free_now if worker.rank == rank]
        free, identity = max(candidates)
        work = self._pending.popleft()
        # an equal share each, so that one frame's crops run on all workers at once
        share = min(free, max(1, -(-len(work.squares) // len(candidates))))
        if len(work.squares) > share:
            head, rest = _split(work, share)
            self._pending.appendleft(rest)
            work = head
        self._workers[identity].sent += len(work.squares)
        return identity, work

    def put_back(self, work: Crops) -> None:
        """Return work that could not be sent to the front of the queue."""
        self._pending.appendleft(work)

    @property
    def pending(self) -> int:
        """Crops that wait for a worker."""
        return sum(len(work.squares) for work in list(self._pending))  # a copy: asked from another thread too

    @property
    def load(self) -> tuple[int, int, int]:
        """Crops that wait, crops that workers hold, crops that workers offered room for; from any thread."""
        workers = list(self._workers.values())
        return self.pending, sum(w.sent - w.finished for w in workers), sum(w.room for w in workers)

    def forget_silent(self, now_ns: int, after_ns: int) -> None:
        """Forget workers that were not heard for `after_ns`; they are dead or will introduce themselves again."""
        for identity in [i for i, w in self._workers.items() if now_ns - w.heard_ns > after_ns]:
            del self._workers[identity]


def _slot(work: Crops) -> tuple[str, int, int]:
    handle = work.frame.handle
    return handle.camera, handle.epoch, handle.slot


def _split(work: Crops, n: int) -> tuple[Crops, Crops]:
    head = replace(work, squares=work.squares[:n])
    return head, replace(work, first=work.first + n, squares=work.squares[n:])
