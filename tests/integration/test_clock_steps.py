"""The wall clock is set while real processes run: nothing is timed by it, and what it dates is marked."""

from __future__ import annotations

import json
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
from support.place import Place
from support.runs import query, up, wait_for
from support.stepped_clock import SteppedClock

HOUR_S = 3600
LIVE = "synthetic://?frames=0&fps=20&width=320&height=240"


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SteppedClock:
    """Give a wall clock that the test sets, of every process that it starts."""
    clock = SteppedClock(tmp_path)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    return clock


def test_a_clock_that_is_set_back_and_ahead_changes_dates_and_nothing_else(place: Place, clock: SteppedClock) -> None:
    count = "SELECT count(*) FROM frames WHERE outcome = 'delivered'"
    started_ns = time.monotonic_ns()
    with up(f"room={LIVE}", *place.models, **place.dirs) as run:
        run.wait_ready("sink.0", "capture.room")
        for ahead_s in (0, -HOUR_S, 2 * HOUR_S, 0):
            clock.set_ahead(ahead_s)
            before = query(place.data_dir, count)[0][0]
            wait_for(lambda: query(place.data_dir, count)[0][0] >= before + 20, "20 more frames")  # noqa: B023
        run.process.send_signal(signal.SIGINT)
        summary = run.finish()
    lasted_s = (time.monotonic_ns() - started_ns) / 1e9
    assert (summary["restarts"], summary["in_flight"]) == (0, 0)
    assert set(summary["dropped"]) <= {"busy"}, "no deadline is of the wall clock"
    assert summary["captured"] == summary["delivered"] + sum(summary["dropped"].values())
    assert summary["fps"] >= summary["delivered"] / lasted_s
    assert summary["clock_steps_s"] == pytest.approx([-HOUR_S, 3 * HOUR_S, -2 * HOUR_S], abs=0.5)
    times = query(place.data_dir, "SELECT min(end_to_end_ns), max(end_to_end_ns) FROM timings")[0]
    assert 0 < times[0] <= times[1] < lasted_s * 1e9
    rows = query(place.data_dir, "SELECT captured_ns, wall_ns FROM frames WHERE outcome = 'delivered' ORDER BY seq")
    assert all(a[0] < b[0] for a, b in pairwise(rows)), "the order is of the monotonic clock"
    offset_ns = time.time_ns() - time.monotonic_ns()
    ahead_h = {round((wall_ns - captured_ns - offset_ns) / 1e9 / HOUR_S, 3) for captured_ns, wall_ns in rows}
    assert ahead_h == {0, -1, 2}, "each frame is dated by the clock of its moment"
    log = (place.data_dir / "logs" / "capture.room.log").read_text()
    assert [f"went {way}" in log for way in ("back by 3600", "ahead by 10800", "back by 7200")] == [True] * 3


def test_a_run_that_starts_after_the_clock_was_set_back_is_the_latest(place: Place, clock: SteppedClock) -> None:
    runs = []
    for ahead_s in (0, -24 * HOUR_S):
        clock.set_ahead(ahead_s)
        with up("synthetic://?frames=5&width=320&height=240", *place.models, **place.dirs) as run:
            summary = run.finish()
        assert (summary["delivered"], summary["clock_steps_s"]) == (5, [])
        runs.append(summary["run"])
    assert runs[1] < runs[0], "its name is of the day before"
    shown = {json.loads(line)["run"] for line in run.derma("findings", "--json").stdout.splitlines()}
    assert shown == {runs[1]}
