"""Many small files of one day and stream become fewer, and at no moment is a finding there twice or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from derma_cloud.files import File, Group, merging, write

MANY = 24  # small files of a day that still grows
MOST_BYTES = 32 << 20  # of a merged file: a larger one is left alone, so no row is written again and again
Groups = dict[Group, list[File]]


def merge_small(directory: Path, groups: Groups, today: str) -> Groups:
    """Merge small files of finished days, and of others when they are many; return the groups to look at again.

    A merged file counts as soon as it is there, and what it holds counts no more: see `files`. While somebody reads
    the archive nothing is done.
    """
    with merging(directory) as may:
        if not may:
            return groups
        again: Groups = {}
        for group, files in groups.items():
            finished = group[0] < today
            left = [
                file for run in _runs(directory, files) for file in _merged(directory, run, 2 if finished else MANY)
            ]
            if not finished:
                again[group] = left
        return again


def _runs(directory: Path, files: Sequence[File]) -> Iterator[list[File]]:
    """Split files into neighbours that together are not too large."""
    run, size = list[File](), 0
    for file in sorted(files):
        more = (directory / file.path).stat().st_size
        if run and size + more > MOST_BYTES:
            yield run
            run, size = [], 0
        run.append(file)
        size += more
    yield run


def _merged(directory: Path, run: list[File], least: int) -> list[File]:
    """Return the one file that took the place of a run, or the run when it is shorter than `least`."""
    if len(run) < least:
        return run
    one = File(*run[0].group, run[0].first, run[-1].last)
    tables = [pq.ParquetFile(directory / file.path).read() for file in run]
    write(pa.concat_tables(tables), directory, one)
    for file in run:
        (directory / file.path).unlink()
    return [one]
