"""From streams to Parquet files: each finding once, whatever dies, and nothing is trimmed that is not stored."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from support.metrics import values
from support.redis_server import RedisServer
from support.runs import wait_for

from derma_common.cloud.entries import FrameFindings, SentLesion, pack
from derma_common.cloud.streams import DEAD, Line, LineDown, findings_key
from derma_common.errors import ConfigError, ResourceError
from derma_common.stage import Stop
from derma_common.workers.metrics import WorkerMetrics

pytest.importorskip("pyarrow", reason="needs the extra `cloud`")
pytest.importorskip("duckdb", reason="needs the extra `cloud`")

from derma_cloud import ingest as ingest_module
from derma_cloud import merge
from derma_cloud.archive import BY_DAY, query
from derma_cloud.files import File, listed, reading, sole_writer, tidy
from derma_cloud.ingest import Ingest
from derma_cloud.merge import MANY

NOON_NS = 1_795_262_400_000_000_000  # 2026-11-21 12:00 UTC
DAY_NS = 86_400_000_000_000
KEY = findings_key("room1", 0)


LESION = SentLesion(0, (1.0, 2.0, 30.5, 40.25), 0.75, {"NV": 0.25, "MEL": 0.75}, "cls@1")


def frame(
    seq: int, day: int = 0, found: tuple[SentLesion, ...] = (LESION,), site: str = "room1", priority: int = 0,
    **changes: Any,
) -> bytes:  # fmt: skip
    values: dict[str, Any] = {
        "run": "run-1", "camera": "cam0", "wall_ns": NOON_NS + day * DAY_NS, "width": 640, "height": 480,
        "outcome": "delivered", "reason": "", "detector": "det@1", "version": "0.1", "lesions": found,
    }  # fmt: skip
    return pack(FrameFindings(site=site, seq=seq, priority=priority, **(values | changes)))


def send(line: Line, *entries: bytes, key: str = KEY, first: int = 1) -> None:
    line.register(key.split(":")[2])
    assert line.send([(key, f"5-{first + i}", data) for i, data in enumerate(entries)]) == [""] * len(entries)


@pytest.fixture
def ingest(line: Line, tmp_path: Path) -> Callable[..., Ingest]:
    """Make an ingest of the test's archive, as a new process would."""

    def make(into: Line = line, today: str = "2030-01-01") -> Ingest:
        return Ingest(into, tmp_path, "archive-1", WorkerMetrics("findings"), lambda: today)

    return make


def stored(directory: Path, sql: str = "SELECT seq FROM findings ORDER BY seq, number") -> list[Any]:
    return [row[0] if len(row) == 1 else row for row in query(directory, sql)[1]]


def test_a_finding_becomes_a_row_with_all_that_the_edge_said(
    line: Line, ingest: Callable[..., Ingest], tmp_path: Path
) -> None:
    unclassified = SentLesion(1, (0.0, 0.0, 5.0, 5.0), 0.5, {}, "", "deadline")
    send(line, frame(7, found=()), frame(8, found=(LESION, unclassified), reason="deadline"))
    assert ingest().turn(Stop()) == 2
    columns, rows = query(tmp_path, "SELECT * REPLACE (day::TEXT AS day) FROM findings ORDER BY number")
    first, second = (dict(zip(columns, row, strict=True)) for row in rows)
    assert first == {
        "site": "room1", "run": "run-1", "camera": "cam0", "seq": 8, "number": 0, "width": 640, "height": 480,
        "time_utc": datetime(2026, 11, 21, 12, 0), "x1": 1.0, "y1": 2.0, "x2": 30.5, "y2": 40.25, "score": 0.75,
        "top": "MEL", "top_probability": 0.75, "probabilities": {"NV": 0.25, "MEL": 0.75}, "missing": "",
        "outcome": "delivered", "reason": "deadline", "detector": "det@1", "classifier": "cls@1", "version": "0.1",
        "priority": 0, "entry": "5-2", "day": "2026-11-21",
    }  # fmt: skip
    assert (second["top"], second["probabilities"], second["missing"]) == (None, {}, "deadline")


def test_files_are_parted_by_day_and_named_by_their_entries(
    line: Line, ingest: Callable[..., Ingest], tmp_path: Path
) -> None:
    send(line, frame(1), frame(2), frame(3, day=1), frame(4), frame(5, found=()))
    ingest(today="2026-11-21").turn(Stop())
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.parquet")) == [
        "day=2026-11-21/room1.0.5-1.5-2.parquet",
        "day=2026-11-21/room1.0.5-4.5-5.parquet",
        "day=2026-11-22/room1.0.5-3.5-3.parquet",
    ]


def test_what_is_stored_leaves_the_stream_and_a_new_process_goes_on_behind_it(
    line: Line, bare: redis.Redis, ingest: Callable[..., Ingest], tmp_path: Path
) -> None:
    send(line, *(frame(i) for i in range(1, 1001)))
    ingest().turn(Stop())
    assert bare.xlen(KEY) < 300, "but for what shares a node with the last one"
    send(line, frame(1001), first=1001)
    assert ingest().turn(Stop()) == 1
    assert stored(tmp_path) == list(range(1, 1002))


def test_a_crash_at_any_write_or_trim_stores_nothing_twice_and_loses_nothing(
    server: RedisServer, line: Line, ingest: Callable[..., Ingest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    send(line, *(frame(i, day=i // 7) for i in range(1, 41)))
    steps = 0
    for fuse in range(200):  # crash one step later each time, with all that was done before still there
        left = [fuse]

        def burn(call: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def wrapped(*arguments: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Crash
                return call(*arguments)

            return wrapped

        dying = Line(server.access())
        with monkeypatch.context() as patch:
            patch.setattr(ingest_module, "write", burn(ingest_module.write))
            patch.setattr(merge, "write", burn(merge.write))
            patch.setattr(dying, "forget", burn(dying.forget))
            patch.setattr(Path, "unlink", burn(Path.unlink))
            try:
                ingest(dying).turn(Stop())
            except Crash:
                steps += 1
            else:
                break
            finally:
                dying.close()
    assert steps > 3
    assert stored(tmp_path) == list(range(1, 41))


def test_hostile_entries_are_quarantined_counted_and_passed(
    line: Line, bare: redis.Redis, ingest: Callable[..., Ingest], tmp_path: Path
) -> None:
    send(line, frame(1), b"garbage", frame(2, site="room2"), frame(3))
    bare.xadd(KEY, {b"what": b"else"}, id="5-9")
    one = ingest()
    one.turn(Stop())
    assert stored(tmp_path) == [1, 3]
    assert bare.xlen(DEAD) == 3
    assert values(one._metrics, "derma_entries_total")["findings", "invalid"] == 3
    assert ingest().turn(Stop()) == 0, "they are behind us"


def test_many_sites_and_priorities_end_in_one_archive(
    line: Line, ingest: Callable[..., Ingest], tmp_path: Path
) -> None:
    for n, site in enumerate(("room1", "room2", "north-7")):
        for priority in (0, 1, 2):
            send(line, frame(n, site=site, priority=priority), key=findings_key(site, priority))
    ingest().turn(Stop())
    rows = stored(tmp_path, BY_DAY)
    assert [(site, n) for _, site, n, _ in rows] == [("north-7", 3), ("room1", 3), ("room2", 3)]


def test_only_one_process_writes_to_an_archive(tmp_path: Path) -> None:
    with sole_writer(tmp_path) as name, pytest.raises(ResourceError, match="another ingest already writes"):  # noqa: SIM117
        with sole_writer(tmp_path):
            pass
    with sole_writer(tmp_path) as again:
        assert again == name


def test_a_second_archive_does_not_take_the_first_ones_findings(
    line: Line, ingest: Callable[..., Ingest], tmp_path: Path
) -> None:
    ingest().turn(Stop())
    send(line, frame(1))
    other = Ingest(line, tmp_path / "other", "archive-2", WorkerMetrics("findings"))
    with pytest.raises(ResourceError, match="--take-over"):
        other.turn(Stop())
    assert ingest().turn(Stop()) == 1


def test_a_line_that_drops_in_the_middle_repeats_nothing(
    line: Line, ingest: Callable[..., Ingest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(line, *(frame(i) for i in range(1, 601)))
    read, reads = line.read, []

    def drops(*arguments: Any) -> Any:
        reads.append(1)
        if len(reads) == 2:
            raise LineDown("cut")
        return read(*arguments)

    monkeypatch.setattr(line, "read", drops)
    one = ingest()
    with pytest.raises(LineDown):
        one.turn(Stop())
    one.turn(Stop())
    assert stored(tmp_path) == list(range(1, 601))


def test_small_files_of_a_past_day_are_merged_and_those_of_today_when_they_are_many(
    line: Line, ingest: Callable[..., Ingest], tmp_path: Path
) -> None:
    one = ingest(today="2026-11-21")
    for i in range(MANY - 1):
        send(line, frame(i), first=i + 1)
        one.turn(Stop())
    assert len(listed(tmp_path)[0]) == MANY - 1
    with reading(tmp_path):  # somebody reads
        send(line, frame(MANY - 1), first=MANY)
        one.turn(Stop())
        assert len(listed(tmp_path)[0]) == MANY
    one.turn(Stop())
    assert listed(tmp_path) == ([File("2026-11-21", "room1", 0, (5, 1), (5, MANY))], [])
    assert stored(tmp_path) == list(range(MANY))


def test_large_files_are_left_alone(
    line: Line, ingest: Callable[..., Ingest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(line, frame(1))
    one = ingest(today="2026-11-21")
    one.turn(Stop())
    size = (tmp_path / listed(tmp_path)[0][0].path).stat().st_size
    monkeypatch.setattr(merge, "MOST_BYTES", round(size * 2.5))  # two of them go together, three do not
    for i in range(2, 6):
        send(line, frame(i), first=i)
        one.turn(Stop())
    ingest(today="2026-11-22").turn(Stop())
    assert [(f.first, f.last) for f in listed(tmp_path)[0]] == [((5, 1), (5, 2)), ((5, 3), (5, 4)), ((5, 5), (5, 5))]
    assert stored(tmp_path) == [1, 2, 3, 4, 5]


FILES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=8)


@given(ranges=FILES, merged=st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_a_file_counts_unless_its_entries_are_in_another_of_its_stream_and_day(
    tmp_path_factory: pytest.TempPathFactory, ranges: list[tuple[int, int]], merged: tuple[int, int]
) -> None:
    directory, at = tmp_path_factory.mktemp("a"), 0
    files = []
    for gap, length in ranges:  # as ingest makes them: one behind the other
        files.append(File("2026-11-21", "room1", 0, (1, at + gap), (1, at + gap + length)))
        at += gap + length + 1
    other = [File("2026-11-22", "room1", 0, f.first, f.last) for f in files[:1]]
    chosen = files[min(merged) : max(merged) + 1]
    whole = [File("2026-11-21", "room1", 0, chosen[0].first, chosen[-1].last)] if len(chosen) > 1 else []
    for file in (*files, *other, *whole):
        (directory / file.path).parent.mkdir(exist_ok=True)
        (directory / file.path).touch()
    expected = sorted([*(f for f in files if not whole or f not in chosen), *other, *whole])
    assert listed(directory)[0] == expected
    assert tidy(directory) == expected
    assert listed(directory) == (expected, [])


def test_a_query_that_does_not_work_is_one_line(line: Line, ingest: Callable[..., Ingest], tmp_path: Path) -> None:
    send(line, frame(1))
    ingest().turn(Stop())
    with pytest.raises(ConfigError, match=r"^the query does not work: .*SELEC") as caught:
        query(tmp_path, "SELEC 1\nFROM findings")
    assert "\n" not in str(caught.value)


def test_an_archive_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="derma serve ingest --out"):
        query(tmp_path / "none", BY_DAY)


def test_ingest_as_a_process_behind_tls_and_the_archive_command(guarded: RedisServer, tmp_path: Path) -> None:
    site = Line(guarded.access("site-room1"))
    send(site, *(frame(i) for i in range(5)))
    send(site, frame(9, priority=2), key=findings_key("room1", 2))
    run = [sys.executable, "-m", "derma_cloud.ingest", "--out", str(tmp_path / "archive"), "--once"]
    environment = {"PATH": "/usr/bin:/bin", **guarded.settings("ingest")}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: site.last_id(KEY) == "5-5", "the ids to stay")
    ask = [sys.executable, "-m", "derma_cloud.archive", str(tmp_path / "archive"), "--json"]
    answer = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(answer.stdout) == [{"day": "2026-11-21", "site": "room1", "findings": 6, "runs": 1}]
    environment |= guarded.settings("classifier")
    refused = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 5
    assert refused.stderr.splitlines()[-1].startswith("derma: Redis refuses us: ")
    site.close()
