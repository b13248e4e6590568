"""What `derma up` says while a run goes on: each note of a source once, and again when it comes again."""

from __future__ import annotations

import io

import pytest

from derma_cli.process import Process
from derma_cli.progress import Progress
from derma_common.heartbeat import Heartbeat, words_path


@pytest.fixture
def capture(run_dir):
    beat = Heartbeat(run_dir, "capture.room", 0)
    yield beat
    beat.close()


def test_a_note_of_a_source_is_said_once_and_again_when_it_comes_back(run_dir, capture):
    stream = io.StringIO()
    progress = Progress(stream, run_dir, ["room", "other"])
    for note in ("", "the camera is lost", "the camera is lost", "", "the camera is lost"):
        capture.report(note=note)
        progress.tell_notes()
    assert stream.getvalue().splitlines() == ["capture.room: the camera is lost"] * 2


def test_a_note_of_the_last_moment_is_still_said(run_dir, capture):
    stream = io.StringIO()
    progress = Progress(stream, run_dir, ["room"])
    capture.report(note="it may be cut off")
    progress.close()
    assert "capture.room: it may be cut off" in stream.getvalue()


def test_the_words_that_a_process_left_with_are_before_its_log(run_dir, tmp_path):
    log = tmp_path / "sink.0.log"
    log.write_text("ready\na line that the full disk cut\n")
    process = Process("sink.0", run_dir, log, -1, {})
    assert process.last_words() == "a line that the full disk cut"
    words_path(run_dir, "sink.0").write_text("sink.0: the database takes no more")
    assert process.last_words() == "sink.0: the database takes no more"
