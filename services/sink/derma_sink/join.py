"""Join what belongs to one attempt at one frame, until it is complete or closed. No socket, no database."""

from __future__ import annotations

from dataclasses import dataclass, field

from derma_common.messages import Classifications, Detections

Key = tuple[str, int]  # camera, seq
MAX_OPEN = 65536


@dataclass(slots=True)
class Join:
    """What has come of one attempt."""

    attempt: int
    detections: Detections | None = None
    rows: dict[int, tuple[Classifications, tuple[float, ...]]] = field(default_factory=dict)  # by detection
    last_ns: int = 0  # when the last message came

    @property
    def complete(self) -> bool:
        """Whether every detection has its classification."""
        return self.detections is not None and all(i in self.rows for i in range(len(self.detections.boxes)))

    def add(self, message: Detections | Classifications) -> None:
        """Take in a message of this attempt; the same one twice changes nothing."""
        if isinstance(message, Detections):
            self.detections = message
            return
        for i, row in enumerate(message.probabilities):
            if len(row) == len(message.classes):
                self.rows[message.first + i] = (message, row)


class Joins:
    """The frames under way at the sink."""

    def __init__(self) -> None:
        self._open: dict[Key, Join] = {}

    def add(self, message: Detections | Classifications, now_ns: int) -> Join | None:
        """Add a message; return the join when it became complete. Older attempts are ignored."""
        if isinstance(message, Detections):
            key, attempt = (message.frame.camera, message.frame.seq), message.frame.attempt
        else:
            key, attempt = (message.camera, message.seq), message.attempt
        join = self._open.get(key)
        if join is None or join.attempt < attempt:
            join = self._open[key] = Join(attempt)
            if len(self._open) > MAX_OPEN:  # far more than all windows together: the oldest is of no frame
                del self._open[next(iter(self._open))]
        elif join.attempt > attempt:
            return None
        join.add(message)
        join.last_ns = now_ns
        return join if join.complete else None

    def pop(self, key: Key) -> Join | None:
        """Take a frame's join out."""
        return self._open.pop(key, None)

    def __len__(self) -> int:
        return len(self._open)
