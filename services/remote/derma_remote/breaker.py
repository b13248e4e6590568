"""How many crops to ask for: up with every answer, down to one probe when an answer stays out."""

from __future__ import annotations

FIRST_PAUSE_NS, LONGEST_PAUSE_NS = 1_000_000_000, 120_000_000_000


class Breaker:
    """Room between one and `most`, or none during a pause; so dead workers cost one crop now and then, not all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._room = 1
        self._pause_ns = FIRST_PAUSE_NS
        self._paused_until_ns = 0

    def answered(self) -> None:
        """An answer came."""
        self._room = min(self._most, self._room * 2)
        self._pause_ns = FIRST_PAUSE_NS

    def missed(self, now_ns: int) -> None:
        """An answer did not come, or said that there is none. Those of one pause count once."""
        if now_ns < self._paused_until_ns:
            return
        self._room = 1
        self._paused_until_ns = now_ns + self._pause_ns
        self._pause_ns = min(LONGEST_PAUSE_NS, self._pause_ns * 2)

    def room(self, now_ns: int) -> int:
        """Return how many crops may be outstanding now."""
        return 0 if now_ns < self._paused_until_ns else self._room
