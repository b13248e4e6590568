"""The asking side of `work`: what a worker says to the detectors, and how it leaves without losing a crop.

What it states is absolute and repeated: the crops it finished for each detector's incarnation, and how many may be
outstanding. The handing side is `workpool.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from derma_common.messages import Capacity, Farewell
from derma_common.topology import instance_of

STATE_EVERY_NS = 250_000_000
LEAVE_WITHIN_NS = 2_000_000_000  # a detector that does not confirm by then is dead


class WorkClaim:
    """One worker's account with the detectors that may send it crops."""

    def __init__(self, worker: str, detectors: Iterable[str], rank: int = 0) -> None:
        """`detectors` are instances; what others claim to have sent is not counted. `rank` is the Capacity's."""
        self._worker, self._rank = worker, rank
        self._finished: dict[str, int] = {}  # by owner; a detector's successor starts at none
        self._farewells: dict[str, Farewell | None] = dict.fromkeys(detectors)
        self._leaving_since_ns: int | None = None
        self._stated_ns = 0

    def finished(self, owner: str, crops: int) -> None:
        """Count crops that need no more work, whatever became of them."""
        if instance_of(owner) not in self._farewells:
            return
        if owner not in self._finished:  # a predecessor of this owner is dead: nobody asks for its count
            for other in [o for o in self._finished if instance_of(o) == instance_of(owner)]:
                del self._finished[other]
        self._finished[owner] = self._finished.get(owner, 0) + crops

    def is_due(self, now_ns: int) -> bool:
        """Say whether it is time for the next statement."""
        return now_ns - self._stated_ns >= STATE_EVERY_NS

    def statement(self, room: int, now_ns: int) -> Capacity:
        """State what is finished and that `room` crops may be outstanding: none any more when leaving."""
        self._stated_ns = now_ns
        return Capacity(self._worker, 0 if self.leaving else room, dict(self._finished), self._rank)

    def leave(self) -> None:
        """Ask for no more, and say so at once."""
        self._leaving_since_ns = time.monotonic_ns()
        self._stated_ns = 0

    @property
    def leaving(self) -> bool:
        """Whether no more is asked for."""
        return self._leaving_since_ns is not None

    def confirmed(self, farewell: Farewell) -> None:
        """Take a detector's word on how much it had sent."""
        instance = instance_of(farewell.owner)
        if instance in self._farewells:
            self._farewells[instance] = farewell

    @property
    def released(self) -> bool:
        """Whether it may go: every detector confirmed that all it sent was finished, or had its time to."""
        if self._leaving_since_ns is None:
            return False
        confirmed = all(f is not None and f.sent == self._finished.get(f.owner, 0) for f in self._farewells.values())
        return confirmed or time.monotonic_ns() - self._leaving_since_ns > LEAVE_WITHIN_NS
