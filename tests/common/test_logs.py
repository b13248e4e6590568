"""Log lines: one an event, with what they belong to, and with nobody's password."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.builders import frame

from derma_common import logs, stderr
from derma_common.errors import StaleHandle
from derma_common.logs import FRAME, Redactor, message_of
from derma_common.messages import Torn
from derma_common.settings import Camera, LoggingSettings, RunSettings, Settings
from derma_common.stage import StageHost, Stop
from derma_common.telemetry import Metrics
from derma_common.topology import FRAMES, RESULTS

SOURCE = "rtsp://user:canary-secret@camera.example/stream?token=canary-token"


def settings(form="json", source=SOURCE):
    return replace(Settings(), logging=LoggingSettings("debug", form), camera=(Camera("room", source, True),))


@pytest.fixture
def lines(monkeypatch):
    """`lines(form)` installs the log of a detector process and returns a function that gives what it wrote."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    stream = io.StringIO()

    def start(form="json", camera=""):
        logs.install(settings(form), "detector.0", "run-1", stream, camera)
        return lambda: stream.getvalue().splitlines()

    yield start
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def test_a_line_of_json_says_when_how_grave_who_and_what(lines):
    written = lines()
    logging.getLogger("derma_x").warning("%d of %s", 3, "four")
    record = json.loads(written()[0])
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "warning", "instance": "detector.0", "run": "run-1", "logger": "derma_x", "message": "3 of four",
    }  # fmt: skip


def test_a_line_for_people_has_the_same_parts(lines):
    written = lines("human", camera="room")
    logging.getLogger("x").warning("so it is")
    time, rest = written()[0].split(" ", 1)
    assert time.endswith("Z")
    assert rest == "WARNING detector.0 run-1 room: so it is"


class Complains:
    """A stage that logs, or fails, with a frame in hand."""

    wait_s = 0.0
    finished = False

    def __init__(self, error=None):
        self.error = error
        self.handled = 0

    def handle(self, message):
        self.handled += 1
        logging.getLogger("stage").warning("I do not like it")
        if self.error:
            raise self.error
        return ()

    def tick(self, now_ns):
        return ()

    def leave(self):
        self.finished = True


@pytest.fixture
def turn(hub, other_hub, heartbeat, until):
    """`turn(stage)` gives the stage a frame, in its host."""

    def once(stage):
        host = StageHost(
            stage, hub, {hub.pull(FRAMES, "detector.0"): 1}, {Torn: [hub.push(RESULTS)]}, heartbeat,
            Metrics("detector.0"), Stop(),
        )  # fmt: skip
        other_hub.push(FRAMES, "detector.0").send(frame(7, attempt=2, camera="room"))
        until(lambda: stage.handled, host.step)

    yield once
    FRAME.set(None)


def test_a_line_of_a_stage_names_the_frame_in_hand(lines, turn):
    written = lines()
    turn(Complains())
    logging.getLogger("stage").info("after it")
    first, after = (json.loads(line) for line in written())
    assert (first["camera"], first["seq"], first["attempt"]) == ("room", 7, 2)
    assert not {"camera", "seq", "attempt"} & after.keys()


def test_pixels_that_are_gone_are_logged_once_with_their_frame(lines, turn):
    written = lines()
    turn(Complains(StaleHandle("the slot holds another")))
    _, record = (json.loads(line) for line in written())
    assert (record["message"], record["seq"]) == ("the slot holds another", 7)


def test_an_error_in_a_stage_is_logged_once_with_its_frame_and_without_secrets(lines, turn):
    written = lines()
    with pytest.raises(RuntimeError) as caught:
        turn(Complains(RuntimeError(f"no answer from {SOURCE}")))
    sys.excepthook(caught.type, caught.value, caught.tb)
    _, record = (json.loads(line) for line in written())
    assert (record["level"], record["seq"]) == ("critical", 7)
    assert record["message"] == "uncaught RuntimeError: no answer from rtsp://camera.example/stream"
    assert record["exception"].splitlines()[-1] == "RuntimeError: no answer from rtsp://camera.example/stream"
    assert "canary" not in str(written())


@pytest.mark.parametrize("form", ["human", "json"])
def test_the_whole_chain_of_exceptions_is_told_without_secrets(lines, form):
    written = lines(form)
    try:
        try:
            raise OSError("password canary-secret refused")
        except OSError as error:
            raise ValueError(f"cannot open {SOURCE!r}") from error
    except ValueError:
        logging.getLogger("x").exception("it failed")
    text = "\n".join(written())
    assert "canary" not in text
    assert f"OSError: password {'…' if form == 'human' else json.dumps('…')[1:-1]} refused" in text
    assert "direct cause" in text
    assert (len(written()) == 1) == (form == "json")


def test_an_error_in_a_thread_is_logged_in_the_same_form(lines):
    written = lines()
    thread = threading.Thread(name="grabber", target=lambda: [][0])
    thread.start()
    thread.join()
    record = json.loads(written()[0])
    assert record["message"] == "uncaught IndexError in grabber: list index out of range"
    assert record["exception"].startswith("Traceback")


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_message_of_several_lines_stays_one(lines, form):
    written = lines(form)
    logging.getLogger("x").warning("one\ntwo\x1b[2J\u2028three\x85four")
    assert len(written()) == 1
    assert "\x1b" not in written()[0]


ADDRESSES = [
    "rtsp://user:pa/ss@host/x", "rtsp://user:pa ss@host/x", "rtsp://user:p%40ss@host/x", "http://host/x?key=abcdefg",
    "http://u:passw\"ord@host/", "http://u:back\\slash@host/", "rtsp://passw@host/x",
    "rtsp://host/user=x&pwd=abcdefg",
]  # fmt: skip


@pytest.mark.parametrize("source", ADDRESSES)
@pytest.mark.parametrize("form", ["{}", "'{}'", "[{}] x", "open {}: failed", "({},"])
def test_a_configured_address_is_redacted_wherever_it_appears(source, form):
    redact = Redactor([source])
    secret = {"pa/ss", "pa ss", "p%40ss", "p@ss", "abcdefg", 'passw"ord', "back\\slash", "passw"}
    for text in (form.format(source), form.format(repr(source)), form.format(json.dumps(source))):
        assert not any(s in redact(text) for s in secret), redact(text)
        assert "host" in redact(text) or "…" in redact(text)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12))
@example("@")
@example("a:b")
def test_no_password_of_any_address_stays_even_when_it_was_never_configured(password):
    shown = Redactor()(f"no answer from rtsp://user:{password}|CANARY@host/x and so on")
    assert "CANARY" not in shown
    assert "so on" in shown


def test_a_short_password_does_not_garble_numbers_but_leaves_the_address():
    redact = Redactor(["rtsp://u:12@host/x"])
    assert redact("frame 120 of rtsp://u:12@host/x") == "frame 120 of rtsp://host/x"


def test_what_is_no_secret_is_left_as_it_is():
    redact = Redactor([SOURCE, "synthetic://?frames=3", "/data/exam.mp4", "0"])
    for text in ("synthetic://?frames=3&seed=1", "/data/exam.mp4 a@b?c", "a: b", "http://127.0.0.1:4318/v1/traces"):
        assert redact(text) == text


def test_the_last_words_are_the_message_of_json_or_the_line():
    assert message_of('{"message": "so it is", "level": "error"}') == "so it is"
    for line in ("detector.0: so it is", "5", "null", '{"no": "message"}', "{", ""):
        assert message_of(line) == line


CRASH = """
import sys
from derma_common import logs, stderr
from derma_common.settings import Camera, LoggingSettings, RunSettings, Settings
from dataclasses import replace
settings = replace(Settings(), logging=LoggingSettings("info", sys.argv[1]), camera=(Camera("room", sys.argv[2]),))
logs.install(settings, "capture.room", "run-1", sys.stderr, "room")
if sys.argv[3] == "word":
    logs.say_last("capture.room: " + sys.argv[2] + " does not open")
else:
    raise RuntimeError("no answer from " + sys.argv[2])
"""


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize("how", ["word", "crash"])
def test_a_process_ends_with_one_line_for_its_user_and_no_secret(form, how):
    done = subprocess.run([sys.executable, "-c", CRASH, form, SOURCE, how], capture_output=True, text=True, check=False)
    assert "canary" not in done.stderr
    last = message_of(done.stderr.strip().splitlines()[-1])
    if how == "word":
        assert last == "capture.room: rtsp://camera.example/stream does not open"
    else:
        assert last.endswith("RuntimeError: no answer from rtsp://camera.example/stream")
        assert done.stderr.count("Traceback") == 1
    if form == "json":
        assert all(json.loads(line)["camera"] == "room" for line in done.stderr.splitlines())


NATIVE = """
import os, sys
from derma_common import logs, stderr
from derma_common.settings import Camera, LoggingSettings, RunSettings, Settings
from dataclasses import replace
settings = replace(Settings(), logging=LoggingSettings("info", sys.argv[1]), camera=(Camera("room", sys.argv[2]),))
logs.install(settings, "capture.room", "run-1", sys.stderr, "room")
assert stderr.needed(settings, "room")
with stderr.logged():
    os.write(2, b"[hls] cannot load 'http://user:canary-secret@camera.example/seg.ts?token=canary-token'\\n")
    logs.logging.warning("from Python")
    os.write(2, b"half a line \\xff")
logs.say_last("the end")
"""


@pytest.mark.parametrize("form", ["human", "json"])
def test_what_native_libraries_write_is_logged_without_secrets(form):
    done = subprocess.run([sys.executable, "-c", NATIVE, form, SOURCE], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert "canary" not in done.stderr
    assert message_of(lines[-1]) == "the end"
    native = [line for line in lines if "cannot load" in line]
    assert "http://camera.example/seg.ts" in native[0]
    if form == "json":
        assert {json.loads(line)["logger"] for line in lines} >= {"native", "root"}


def test_native_lines_stay_where_they_are_unless_they_could_hold_a_secret_or_must_be_json():
    assert stderr.needed(settings("human"), "room")
    assert stderr.needed(settings("json", "exam.mp4"), "")
    assert not stderr.needed(settings("human"), "")
    for source in ("exam.mp4", "0", "synthetic://?frames=3"):
        assert not stderr.needed(settings("human", source), "room")


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("/data/jane doe is empty", "… is empty"),
        (
            "/data/jane doe/exam 1.png is not a picture that OpenCV can decode",
            "… is not a picture that OpenCV can decode",
        ),
        ("uncaught OSError: '/data/jane doe/1.v2.avi': no", "uncaught OSError: '…': no"),
        ("/data/other/exam.mp4 and /data/jane", "/data/other/exam.mp4 and /data/jane"),
    ],
)
def test_a_place_and_the_file_in_it_are_not_logged_but_shown_to_who_typed_them(text, logged):
    redact = Redactor(["/data/jane doe"], ["/data/jane doe"])
    assert redact(text) == logged
    assert redact.secrets(text) == text


def test_the_places_of_a_run_are_its_recordings_the_fixed_part_of_patterns_and_the_data_folder():
    cameras = tuple(Camera(f"c{i}", source) for i, source in enumerate(("/a/jane.avi", "/b/joe/*.png", "/*.png", "0")))
    redact = logs.formatter(replace(settings(), camera=cameras, run=RunSettings("/d/mary")), "sink.0", "run-1").redact
    told = [redact(f"no {place}") for place in ("/a/jane.avi", "/b/joe/1.png", "/x/1.png")]
    assert told == ["no …", "no …", "no /x/1.png"]
    assert redact("the database /d/mary/derma.db takes no more") == "the database … takes no more"
