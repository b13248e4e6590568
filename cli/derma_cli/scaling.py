"""How many workers a backlog wants: more at once, fewer only when it has been small for a while."""

from __future__ import annotations

from collections import deque
from math import ceil


class Scaler:
    """Follows the backlog up immediately and down after `calm_s`, as Kubernetes' autoscaler does by default.

    What counts is the largest need of the last `calm_s` seconds, so workers do not come and go with each burst.
    """

    def __init__(self, least: int, most: int, share: int, calm_s: float) -> None:
        """`share` is how many entries a worker may have before it; never fewer than `least` or more than `most`."""
        self._least, self._most, self._share, self._calm_s = least, most, share, calm_s
        self._needs: deque[tuple[float, int]] = deque()  # falling: what a later, larger need hides is left out

    def wanted(self, now_s: float, backlog: int) -> int:
        """Return how many workers there should be, given how many entries wait or are worked on."""
        need = ceil(backlog / self._share)
        while self._needs and self._needs[-1][1] <= need:
            self._needs.pop()
        self._needs.append((now_s, need))
        while now_s - self._needs[0][0] > self._calm_s:
            self._needs.popleft()
        return min(self._most, max(self._least, self._needs[0][1]))
