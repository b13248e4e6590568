"""Some processes of one kind: as many as wanted, a dead one replaced after a while, all ended with us."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from derma_common.errors import error_of

FIRST_WAIT_S, MOST_WAIT_S = 0.25, 30.0
FRUITFUL_S = 30.0  # who lived so long did not die of its start
LEAVE_WITHIN_S = 30.0
_LIBC = ctypes.CDLL(None)  # opened here: between fork and exec little may be done


class Child(Protocol):
    """What a fleet needs of a process."""

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class Refused(Exception):
    """A worker ended because of something that a user can mend; it has said what."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit status {exit_code}")
        self.exit_code = exit_code


@dataclass(slots=True)
class Seat:
    """A worker's place, over its restarts."""

    child: Child | None = None
    started_s: float = 0.0
    deaths: int = 0  # in a row, soon after the start
    start_at_s: float = 0.0
    leave_by_s: float | None = None


class Fleet:
    """Owns the processes; `turn` it a few times a second."""

    def __init__(self, spawn: Callable[[], Child]) -> None:
        self._spawn = spawn
        self._seats: list[Seat] = []
        self.done = 0  # ended by themselves, with nothing left to do

    @property
    def size(self) -> int:
        """How many should run."""
        return sum(seat.leave_by_s is None for seat in self._seats)

    def turn(self, wanted: int, now_s: float) -> None:
        """Come nearer to `wanted` running processes. Raises Refused when one ended by an error of the user's."""
        for seat in list(self._seats):
            self._look(seat, now_s)
        while self.size < wanted:
            self._seats.append(Seat())
        for seat in [s for s in reversed(self._seats) if s.leave_by_s is None][: self.size - wanted]:  # the youngest
            seat.leave_by_s = now_s + LEAVE_WITHIN_S
            if seat.child is not None:
                seat.child.terminate()
        for seat in self._seats:
            if seat.child is None and seat.leave_by_s is None and now_s >= seat.start_at_s:
                seat.child, seat.started_s = self._spawn(), now_s

    def _look(self, seat: Seat, now_s: float) -> None:
        code = seat.child.poll() if seat.child is not None else 0
        if seat.leave_by_s is not None:
            if code is not None:
                self._seats.remove(seat)
            elif now_s > seat.leave_by_s and seat.child is not None:
                seat.child.kill()
        elif seat.child is not None and code is not None:
            if error_of(code) is not None:
                raise Refused(code)
            self.done += code == 0
            seat.deaths = seat.deaths + 1 if now_s - seat.started_s < FRUITFUL_S else 1
            seat.child = None
            seat.start_at_s = now_s + min(MOST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(seat.deaths - 1, 16))

    def close(self) -> None:
        """Ask all to leave, then see to it."""
        children = [seat.child for seat in self._seats if seat.child is not None]
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(LEAVE_WITHIN_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._seats.clear()


def module(name: str, arguments: Sequence[str]) -> Callable[[], Child]:
    """Return how to start `python -m name` with these arguments."""
    command = [sys.executable, "-m", name, *arguments]
    return lambda: subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=leave_with_us)


def leave_with_us() -> None:
    """Let the kernel ask a child to leave when this command is killed; for `preexec_fn`."""
    _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
