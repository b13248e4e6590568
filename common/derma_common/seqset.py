"""Which sequence numbers have their outcome: the content of an acknowledgement.

A window of credits keeps the set almost contiguous, so it is stored as its ranges: a few pairs of
integers however long the run is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]  # first and last, both included


class SeqSet:
    """A set of non-negative integers kept as sorted, disjoint, non-adjacent ranges."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int | None = None) -> None:
        """Add first, or first … last. Raises ValueError for an inverted or negative range."""
        last = first if last is None else last
        if first < 0 or last < first:
            raise ValueError(f"no range of sequence numbers: {first} … {last}")
        start = bisect_right(self._ranges, first - 1, key=lambda r: r[1] + 1)
        stop = start
        while stop < len(self._ranges) and self._ranges[stop][0] <= last + 1:
            first = min(first, self._ranges[stop][0])
            last = max(last, self._ranges[stop][1])
            stop += 1
        # a range that ends exactly at first − 1 is adjacent: join it
        if start and self._ranges[start - 1][1] + 1 >= first:
            start -= 1
            first = min(first, self._ranges[start][0])
            last = max(last, self._ranges[start][1])
        self._ranges[start:stop] = [(first, last)]

    def gaps(self, first: int, last: int) -> list[Range]:
        """Return the ranges of first … last that are not in the set."""
        gaps: list[Range] = []
        next_free = first
        for i in range(bisect_right(self._ranges, first - 1, key=lambda r: r[1]), len(self._ranges)):
            begin, end = self._ranges[i]
            if begin > last:
                break
            if begin > next_free:
                gaps.append((next_free, begin - 1))
            next_free = end + 1
        if next_free <= last:
            gaps.append((next_free, last))
        return gaps

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The ranges, ascending."""
        return tuple(self._ranges)

    @property
    def end(self) -> int:
        """One more than the largest member; 0 when empty."""
        return self._ranges[-1][1] + 1 if self._ranges else 0

    def __contains__(self, seq: int) -> bool:
        i = bisect_right(self._ranges, seq, key=lambda r: r[0])
        return i > 0 and self._ranges[i - 1][1] >= seq

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self._ranges)

    def __iter__(self) -> Iterator[int]:
        for first, last in self._ranges:
            yield from range(first, last + 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqSet) and self._ranges == other._ranges

    def __repr__(self) -> str:
        return f"SeqSet({self._ranges})"
