"""The credit window: flow control, bounded latency, loss detection and slot reuse in one mechanism.

A frame takes a credit and gives it back when the sink says that its outcome is durable. No socket,
no clock, no pixels here: only which frames are held, which wait to be closed, and what is durable.

Conservation, at every moment: captured = delivered + Σ dropped{reason} + in flight, where delivered and dropped are the
sink's counts plus closings under way, and in flight counts held frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from derma_common.messages import Ack, Close, Frame
from derma_common.seqset import Range, SeqSet


@dataclass(slots=True)
class Held:
    """A frame in flight."""

    frame: Frame
    sends: int = 1
    closing: str = ""  # the reason for which the sink was asked to close it


@dataclass(frozen=True, slots=True)
class Terms:
    """The conservation law's terms, one snapshot."""

    captured: int
    delivered: int
    dropped: dict[str, int]
    in_flight: int


class CreditWindow:
    """The frames of one camera that have no durable outcome yet."""

    def __init__(self, camera: str, size: int, incarnation: int) -> None:
        """`incarnation` makes this process's attempts newer than any of its predecessors'."""
        self.camera, self.size = camera, size
        self._first_attempt = incarnation << 16
        self.held: dict[int, Held] = {}
        self.durable = SeqSet()
        self._delivered = 0
        self._dropped: dict[str, int] = {}
        self._closing: list[tuple[Range, str, str]] = []  # never held: range, reason, origin
        self._captured = 0
        self.synchronised = False

    @property
    def has_credit(self) -> bool:
        """Whether a frame may be sent."""
        return self.synchronised and len(self.held) < self.size

    @property
    def idle(self) -> bool:
        """Whether every frame has its durable outcome."""
        return self.synchronised and not self.held and not self._closing

    @property
    def attempt(self) -> int:
        """The attempt number of a frame's first sending by this process."""
        return self._first_attempt

    @property
    def next_seq(self) -> int:
        """One more than the largest seq that is durable, held or being closed."""
        ends = [self.durable.end, max(self.held, default=-1) + 1]
        return max(ends + [last + 1 for (_, last), _, _ in self._closing])

    def take(self, frame: Frame) -> None:
        """Use a credit for a captured frame."""
        if frame.seq in self.held or frame.seq in self.durable:
            raise ValueError(f"{self.camera} {frame.seq} was taken before")
        self.held[frame.seq] = Held(frame)
        self._captured += 1

    def drop(self, first: int, last: int, reason: str, origin: str = "") -> None:
        """Close frames first … last that were captured but never sent. Adjacent ones become one range."""
        self._captured += last - first + 1
        if self._closing and not origin:
            (begin, end), previous, previous_origin = self._closing[-1]
            if previous == reason and not previous_origin and end + 1 == first:
                self._closing[-1] = ((begin, last), reason, "")
                return
        self._closing.append(((first, last), reason, origin))

    def give_up(self, seq: int, reason: str) -> None:
        """Ask the sink to close a held frame; it stays held until the sink says what became of it."""
        if not self.held[seq].closing:
            self.held[seq].closing = reason

    def closings(self) -> list[Close]:
        """Return what the sink is to be asked, again and again until it is durable."""
        asked = [Close(self.camera, (frames,), reason, origin) for frames, reason, origin in self._closing]
        asked += [
            Close(self.camera, ((seq, seq),), h.closing, trace=h.frame.trace)
            for seq, h in self.held.items()
            if h.closing
        ]
        return asked

    def resend(self, seq: int, now_ns: int) -> Frame:
        """Return a held frame as a new attempt."""
        held = self.held[seq]
        held.sends += 1
        held.frame = replace(held.frame, attempt=held.frame.attempt + 1, sent_ns=now_ns)
        return held.frame

    def acknowledge(self, ack: Ack) -> list[Frame]:
        """Take in what is durable; return the frames whose slots are free now."""
        durable = SeqSet(ack.ranges)
        if len(durable) < len(self.durable):
            return []  # an older statement, overtaken
        known = len(self.durable) + self._in_closing(durable)
        self.durable, self._delivered, self._dropped = durable, ack.delivered, dict(ack.dropped)
        self._closing = [
            (gap, reason, origin) for frames, reason, origin in self._closing for gap in durable.gaps(*frames)
        ]
        freed = [self.held.pop(seq).frame for seq in sorted(s for s in self.held if s in durable)]
        # made durable by what a predecessor of this process had sent: captured, but not by this process
        self._captured += len(durable) - known - len(freed)
        self.synchronised = True
        return freed

    def _in_closing(self, durable: SeqSet) -> int:
        total = 0
        for (first, last), _, _ in self._closing:
            total += last - first + 1 - sum(b - a + 1 for a, b in durable.gaps(first, last))
        return total

    def adopt(self, frames: Iterable[Range], reason: str) -> None:
        """Close what a predecessor had captured and nobody finished."""
        for first, last in frames:
            self.drop(first, last, reason)

    def terms(self) -> Terms:
        """Return the conservation law's terms."""
        dropped = dict(self._dropped)
        for (first, last), reason, _ in self._closing:
            dropped[reason] = dropped.get(reason, 0) + last - first + 1
        return Terms(self._captured, self._delivered, dropped, len(self.held))
