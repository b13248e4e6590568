"""The archive's files: their names are the truth about what was stored, so a crash at any moment changes nothing.

    DIR/day=2026-11-21/room1.0.1795251600000-1.1795251600000-412.parquet

holds all findings of one day in the entries from …-1 to …-412 of room1's stream of priority 0. A file appears whole or
not at all. Where reading goes on is the greatest last id among a stream's files. A file whose range lies within that of
another of its stream and day was merged into it, and counts no more.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from derma_common.errors import ResourceError

_NAME = re.compile(r"([a-z0-9][a-z0-9_-]{0,31})\.(\d)\.(\d{1,20})-(\d{1,20})\.(\d{1,20})-(\d{1,20})\.parquet")
_DRAFT = ".part"
_LOCK = "archive.lock"
Id = tuple[int, int]
Group = tuple[str, str, int]  # day, site, priority


@dataclass(frozen=True, slots=True, order=True)
class File:
    """A file of findings: one day of one stream, the entries from `first` to `last`."""

    day: str
    site: str
    priority: int
    first: Id
    last: Id

    @property
    def group(self) -> Group:
        """The day and stream."""
        return self.day, self.site, self.priority

    @property
    def path(self) -> Path:
        """The place within the archive."""
        ids = "{}-{}.{}-{}".format(*self.first, *self.last)
        return Path(f"day={self.day}") / f"{self.site}.{self.priority}.{ids}.parquet"

    def holds(self, other: File) -> bool:
        """Whether the other one's entries are in this one."""
        return self.group == other.group and self.first <= other.first and other.last <= self.last


def listed(directory: Path) -> tuple[list[File], list[File]]:
    """Return the files that count, in order, and those that were merged into them."""
    groups: dict[Group, list[File]] = defaultdict(list)
    for folder in directory.glob("day=*"):
        for name in os.listdir(folder):
            if found := _NAME.fullmatch(name):
                site, priority, *ids = found.groups()
                a, b, c, d = map(int, ids)
                file = File(folder.name.removeprefix("day="), site, int(priority), (a, b), (c, d))
                groups[file.group].append(file)
    valid, merged = list[File](), list[File]()
    for files in groups.values():
        # the widest of those that begin together first: a later one is either behind it or within it
        for file in sorted(files, key=lambda f: (f.first, (-f.last[0], -f.last[1]))):
            inside = bool(valid) and valid[-1].holds(file)
            (merged if inside else valid).append(file)
    return sorted(valid), merged


def write(table: pa.Table, directory: Path, file: File) -> None:
    """Make a file appear, durable. Raises ResourceError when there is no room or no right."""
    path = directory / file.path
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_DRAFT}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as stream:
            pq.write_table(table, stream, compression="zstd")
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
        for folder in (path.parent, directory):
            _sync(folder)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ResourceError(f"the archive {directory} cannot be written: {error}") from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def tidy(directory: Path) -> list[File]:
    """Remove what crashes left behind; return the files that count. Only for the one who writes."""
    valid, merged = listed(directory)
    for file in merged:
        (directory / file.path).unlink()
    for draft in directory.glob(f"day=*/.*{_DRAFT}"):
        draft.unlink()
    return valid


@contextmanager
def sole_writer(directory: Path) -> Iterator[str]:
    """Hold the archive for writing; yield its name, which stays the same for ever. Raises ResourceError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "archive.id").open("a+", encoding="ascii") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ResourceError(f"another ingest already writes to {directory}") from None
            stream.seek(0)
            name = stream.read().strip()
            if not name:
                name = secrets.token_hex(12)
                stream.write(name)
                stream.flush()
                os.fsync(stream.fileno())
            yield name
    except OSError as error:
        raise ResourceError(f"the archive {directory} cannot be written: {error}") from error


@contextmanager
def merging(directory: Path) -> Iterator[bool]:
    """Yield whether files may be removed now: nobody reads, and nobody will begin to within the block."""
    with (directory / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def reading(directory: Path) -> Iterator[None]:
    """Keep files from being removed within the block; needs no right to write."""
    lock = directory / _LOCK
    if not lock.exists():  # nothing was ever merged
        yield
        return
    with lock.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield
