"""The heartbeat file: what a process last said, whatever became of it."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.heartbeat import Heartbeat, heartbeat_path, read_beat


def gone_pid():
    """Return the pid of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def set_version(path, version, pid=None):
    with path.open("r+b") as file:
        file.write(struct.pack("<Q", version))
        if pid is not None:
            file.seek(20)
            file.write(struct.pack("<I", pid))


def test_an_instance_that_never_beat_has_no_beat(run_dir):
    assert read_beat(run_dir, "sink.0") is None


def test_a_beat_says_who_it_is_from(heartbeat, run_dir):
    heartbeat.metrics_port = 4321
    heartbeat.state = "ready"
    heartbeat.beat()
    beat = read_beat(run_dir, "test.0")
    assert (beat.incarnation, beat.pid, beat.state, beat.metrics_port) == (0, os.getpid(), "ready", 4321)
    assert beat.doing is None
    assert beat.report == {}


def test_the_frame_in_hand_is_known_until_it_is_done(heartbeat, run_dir):
    heartbeat.doing("cam0", 41)
    assert read_beat(run_dir, "test.0").doing == ("cam0", 41)
    heartbeat.done()
    beat = read_beat(run_dir, "test.0")
    assert (beat.doing, beat.handled) == (None, 1)


def test_every_beat_is_later_than_the_one_before(heartbeat, run_dir):
    first = read_beat(run_dir, "test.0").beat_ns
    heartbeat.beat()
    assert read_beat(run_dir, "test.0").beat_ns > first


@given(report=st.dictionaries(st.text(max_size=8), st.integers(0, 2**40) | st.floats(allow_nan=False), max_size=20))
def test_a_report_comes_back_as_it_was(heartbeat, run_dir, report):
    heartbeat.report(dropped=report)
    assert read_beat(run_dir, "test.0").report == {"dropped": report}


def test_a_report_that_does_not_fit_is_refused_and_the_last_one_stays(heartbeat, run_dir):
    heartbeat.report(frames=1)
    with pytest.raises(ValueError, match="does not fit"):
        heartbeat.report(text="x" * 9000)
    heartbeat.beat()
    assert read_beat(run_dir, "test.0").report == {"frames": 1}


@given(camera=st.text(st.characters(codec="utf-8"), max_size=90), seq=st.integers(0, 2**62))
def test_any_camera_and_seq_of_the_wire_can_be_in_hand(heartbeat, run_dir, camera, seq):
    heartbeat.doing(camera, seq)
    shown, number = read_beat(run_dir, "test.0").doing
    assert number == seq
    if len(camera.encode()) <= 64:
        assert shown == camera.rstrip("\0")


def test_a_successor_finds_its_predecessors_last_report(run_dir):
    first = Heartbeat(run_dir, "capture.cam0", 0)
    first.report(next_seq=17)
    first.close()
    second = Heartbeat(run_dir, "capture.cam0", 1)
    assert second.previous.report == {"next_seq": 17}
    assert second.previous.incarnation == 0
    beat = read_beat(run_dir, "capture.cam0")
    assert (beat.incarnation, beat.report, beat.handled) == (1, {"next_seq": 17}, 0)
    second.close()


KILLED_AT_WORK = """
import os, signal, sys
from pathlib import Path
from derma_common.heartbeat import Heartbeat
beat = Heartbeat(Path(sys.argv[1]), "detector.0", 3)
beat.report(frames=5)
beat.doing("cam0", 99)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_last_beat_of_a_killed_process_is_readable(run_dir):
    child = subprocess.run([sys.executable, "-c", KILLED_AT_WORK, str(run_dir)], check=False)
    assert child.returncode == -signal.SIGKILL
    beat = read_beat(run_dir, "detector.0")
    assert (beat.doing, beat.incarnation, beat.report) == (("cam0", 99), 3, {"frames": 5})


def test_a_beat_that_a_living_process_is_writing_is_not_read(heartbeat, run_dir):
    set_version(heartbeat_path(run_dir, "test.0"), 7)
    assert read_beat(run_dir, "test.0") is None
    heartbeat.beat()
    assert read_beat(run_dir, "test.0") is not None


def test_a_beat_whose_writer_died_in_the_middle_is_read(heartbeat, run_dir):
    heartbeat.doing("cam0", 5)
    set_version(heartbeat_path(run_dir, "test.0"), 7, pid=gone_pid())
    assert read_beat(run_dir, "test.0").doing == ("cam0", 5)


@given(data=st.binary(max_size=200))
def test_a_report_that_was_torn_is_no_report(heartbeat, run_dir, data):
    heartbeat.report(text="y" * len(data))
    with heartbeat_path(run_dir, "test.0").open("r+b") as file:
        content = file.read()
        at = content.index(b"\x81\xa4text")
        file.seek(at)
        file.write(data)
    assert isinstance(read_beat(run_dir, "test.0").report, dict)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\0" * 8192], ids=["empty", "short", "never written"])
def test_a_file_that_holds_no_beat_yet_has_none(run_dir, content):
    heartbeat_path(run_dir, "sink.0").write_bytes(content)
    assert read_beat(run_dir, "sink.0") is None


def test_the_file_is_readable_by_its_user_alone(heartbeat, run_dir):
    assert heartbeat_path(run_dir, "test.0").stat().st_mode & 0o777 == 0o600
