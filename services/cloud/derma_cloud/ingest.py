"""From the streams of findings of all sites into an archive of Parquet files, each finding once.

`python -m derma_cloud.ingest --out DIR`. What is in the files is trimmed from the streams and nothing else is, so
whatever dies, reading goes on behind the last file. One archive drains one Redis: the first one's name is kept there.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from derma_cloud.files import File, Id, sole_writer, tidy, write
from derma_cloud.merge import Groups, merge_small
from derma_cloud.rows import SCHEMA, Row, day_of, rows_of
from derma_cloud.sites import checked_site, keys_by_priority
from derma_common.cloud.entries import FrameFindings, unpack
from derma_common.cloud.streams import Delivery, Line, findings_key, order
from derma_common.errors import InvalidMessage, ResourceError
from derma_common.stage import Stop
from derma_common.workers.letters import DeadLetters
from derma_common.workers.metrics import WorkerMetrics
from derma_common.workers.retry import keep_trying
from derma_common.workers.start import Place, positive, start

log = logging.getLogger(__name__)
OWNER = ".archive"  # no site can be called so
AT_ONCE = 256  # entries of one read; the largest have 5 MiB
MOST_ROWS = 20_000  # of one file


@dataclass(slots=True)
class Draft:
    """Rows of one day, on their way into a file."""

    day: str = ""
    first: Id = (0, 0)
    last: Id = (0, 0)
    rows: list[Row] = field(default_factory=list)


class Ingest:
    """Owns the archive; only one process may."""

    def __init__(
        self, line: Line, directory: Path, name: str, metrics: WorkerMetrics,
        today: Callable[[], str] = lambda: datetime.now(UTC).date().isoformat(),
    ) -> None:  # fmt: skip
        self._line, self._directory, self._name, self._metrics, self._today = line, directory, name, metrics, today
        self._letters = DeadLetters(line, "", metrics)
        self._growing: Groups = {}
        self._cursors: dict[str, Id] = {}
        for file in tidy(directory):
            self._growing.setdefault(file.group, []).append(file)
            key = findings_key(file.site, file.priority)
            self._cursors[key] = max(file.last, self._cursors.get(key, (0, 0)))

    def turn(self, stop: Stop) -> int:
        """Store all that waits; return how many entries. Raises LineDown, and ResourceError for a full disk."""
        owner = self._line.owner(OWNER, self._name)
        if owner != self._name:
            raise ResourceError(
                f"the findings of this Redis go to another archive ({owner[:24]!r}), and what one stores the other "
                f"misses; to let {self._directory} go on in its place: --take-over"
            )
        ranks = keys_by_priority(self._line.sites(), findings_key)
        stored = sum(self._drain(key, stop) for rank in ranks for key in rank if not stop.asked)
        self._growing = merge_small(self._directory, self._growing, self._today())
        return stored

    def _drain(self, key: str, stop: Stop) -> int:
        after, draft, count = self._cursors.get(key, (0, 0)), Draft(), 0
        while not stop.asked and (found := self._line.read({key: _text(after)}, AT_ONCE, 0.0)):
            for delivery in found:
                after = order(delivery.id)
                if frame := self._opened(delivery):
                    draft = self._add(key, draft, frame, delivery.id)
                draft.last = after  # what holds no finding is behind us as well
            count += len(found)
        self._store(key, draft)
        return count

    def _opened(self, delivery: Delivery) -> FrameFindings | None:
        try:
            frame: FrameFindings = unpack(delivery.data, FrameFindings)
            checked_site(frame.site, delivery.key)
        except InvalidMessage as error:
            self._letters.bury(delivery, "invalid", str(error))
            return None
        self._metrics.count("done")
        return frame

    def _add(self, key: str, draft: Draft, frame: FrameFindings, entry_id: str) -> Draft:
        rows, day = rows_of(frame, entry_id), day_of(frame)
        if rows and draft.rows and (draft.day != day or len(draft.rows) + len(rows) > MOST_ROWS):
            self._store(key, draft)
            draft = Draft()
        if rows and not draft.rows:
            draft.day, draft.first = day, order(entry_id)
        draft.rows += rows
        return draft

    def _store(self, key: str, draft: Draft) -> None:
        if draft.rows:
            site, priority = key.split(":")[2:]
            file = File(draft.day, site, int(priority), draft.first, draft.last)
            write(pa.Table.from_pylist(draft.rows, schema=SCHEMA), self._directory, file)
            self._growing.setdefault(file.group, []).append(file)
        if draft.last > (0, 0):
            self._cursors[key] = draft.last
            self._line.forget(key, _text(draft.last))


def _text(entry_id: Id) -> str:
    return "{}-{}".format(*entry_id)


def declare(parser: argparse.ArgumentParser) -> None:
    """Add this worker's arguments."""
    parser.add_argument("--out", type=Path, required=True, help="the archive's folder")
    parser.add_argument("--every", type=positive, default=60.0, help="seconds between two rounds")
    parser.add_argument("--once", action="store_true", help="store what waits now, and end")
    parser.add_argument("--take-over", action="store_true", help="go on in the place of another archive")


def work(place: Place) -> None:
    """Store findings until asked to stop."""
    arguments, stop, line = place.arguments, place.stop, place.line
    with sole_writer(arguments.out) as name:
        ingest = Ingest(line, arguments.out, name, place.metrics)

        def turn() -> None:
            if arguments.take_over:
                line.take_site(OWNER, name)
                arguments.take_over = False  # once: another may take it over from us
            stored = ingest.turn(stop)
            log.log(logging.INFO if stored else logging.DEBUG, "%d entries stored", stored)
            if arguments.once:
                stop.ask()

        keep_trying(turn, lambda: None, stop, place.metrics, arguments.every)


if __name__ == "__main__":
    sys.exit(start("ingest", "findings", work, declare))
