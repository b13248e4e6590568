"""`derma logs`: lines of several processes in the order of time."""

from __future__ import annotations

import io

import pytest

from derma_cli.logs import in_order, logs
from derma_common.errors import ResourceError

EARLY = "2026-11-21T12:07:45.100Z INFO sink.0 run1: ready\n"
MIDDLE = "2026-11-21T12:07:45.200Z ERROR detector.0 run1: it failed\n"
LATE = '{"time": "2026-11-21T12:07:45.300Z", "level": "info", "instance": "sink.0"}\n'


def test_lines_of_all_processes_come_in_the_order_of_time():
    merged = in_order([("detector.0", io.StringIO(MIDDLE)), ("sink.0", io.StringIO(EARLY + LATE))])
    assert list(merged) == [EARLY.rstrip(), MIDDLE.rstrip(), LATE.rstrip()]


def test_a_traceback_stays_with_its_line_and_says_whose_it_is():
    merged = in_order([("detector.0", io.StringIO(MIDDLE + "Traceback:\n  boom\n")), ("sink.0", io.StringIO(LATE))])
    assert list(merged) == [MIDDLE.rstrip(), "detector.0: Traceback:", "detector.0:   boom", LATE.rstrip()]


def test_one_service_is_shown_alone_and_one_that_is_not_there_is_told(capsys, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "detector.0.log").write_text(MIDDLE)
    (tmp_path / "logs" / "sink.0.log").write_text(EARLY)
    logs("sink", data_dir=str(tmp_path))
    assert capsys.readouterr().out == EARLY
    with pytest.raises(ResourceError, match=r"no logs of capture .* there is: detector\.0, sink\.0"):
        logs("capture", data_dir=str(tmp_path))
