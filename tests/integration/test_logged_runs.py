"""What real processes log: JSON that can be read, and no camera's password, whatever goes wrong with the camera."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.place import Place
from support.runs import derma, up, wait_for

from derma_common.inference.fake import fake_classifier

JSON = ("--set", "logging.format=json")
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nnone.ts?token=canary-segment\n#EXT-X-ENDLIST\n"


def records(data_dir: Path) -> list[dict[str, Any]]:
    """Return every line of every log; each is one JSON object."""
    logs = sorted((data_dir / "logs").glob("*.log"))
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


def test_every_line_of_a_run_is_json_with_its_run_and_instance(place: Place) -> None:
    with up("synthetic://?frames=20&width=320&height=240", *JSON, *place.models, **place.dirs) as run:
        summary = run.finish()
    lines = records(place.data_dir)
    assert {line["run"] for line in lines} == {summary["run"]}
    assert {line["instance"] for line in lines} == {
        "supervisor",
        "sink.0",
        "detector.0",
        "classifier.0",
        "capture.cam0",
    }
    assert all({"time", "level", "message", "logger"} <= line.keys() for line in lines)
    assert {line["camera"] for line in lines if line["instance"] == "capture.cam0"} == {"cam0"}
    shown = [json.loads(line) for line in run.derma("logs", "supervisor").stdout.splitlines()]
    assert any(record["message"].startswith("capture.cam0 started (start 0, pid ") for record in shown)


def test_a_death_and_its_answer_are_in_the_supervisors_log(place: Place) -> None:
    with up("synthetic://?frames=100000&width=320&height=240", *JSON, *place.models, **place.dirs) as run:
        before = run.wait_ready("classifier.0", "capture.cam0")["classifier.0"]["pid"]
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: run.services()["classifier.0"]["pid"] not in (0, before), "the successor")
        assert run.derma("down").returncode == 0
        run.finish()
    said = [(r["level"], r["message"]) for r in records(place.data_dir) if r["instance"] == "supervisor"]
    assert ("warning", "classifier.0 ended (signal 9), starting it again") in said
    assert any(message.startswith("classifier.0 started (start 1, pid ") for _, message in said)


class _Camera(http.server.BaseHTTPRequestHandler):
    """A camera that wants another password, or sends a playlist without its pictures."""

    def do_GET(self) -> None:
        if not self.path.startswith("/list.m3u8"):
            self.send_error(401 if self.path.startswith("/locked") else 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PLAYLIST)))
        self.end_headers()
        self.wfile.write(PLAYLIST)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[int]:
    """Serve such cameras on a port of the loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("form", "path"),
    [("json", "http:locked"), ("json", "http:list.m3u8"), ("human", "http:list.m3u8"), ("human", "rtsp:stream")],
)
def test_a_camera_that_fails_leaves_no_password_in_any_file_and_one_clear_line(
    place: Place, tmp_path: Path, server: int, form: str, path: str
) -> None:
    scheme, _, name = path.partition(":")
    source = f"{scheme}://user:canary-secret@127.0.0.1:{server}/{name}?token=canary-token"
    (tmp_path / "camera.toml").write_text(f"[[camera]]\nname = 'room'\nsource = '{source}'\n")
    arguments = ["--config", str(tmp_path / "camera.toml"), "--set", f"logging.format={form}"]
    done = derma("up", *arguments, *place.models, **place.dirs)
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1] == (
        f"derma: capture.room: camera {scheme}://127.0.0.1:{server}/{name} does not open; "
        "check address, user and password"
    )
    assert "canary" not in done.stderr + done.stdout
    for file in [f for f in place.data_dir.rglob("*") if f.is_file()]:
        assert b"canary" not in file.read_bytes(), f"a secret is in {file}"
    if form == "json":
        assert any("does not open" in r["message"] for r in records(place.data_dir) if r["instance"] == "capture.room")
    if name == "list.m3u8":
        assert "none.ts" in (place.data_dir / "logs" / "capture.room.log").read_text(), "FFmpeg's own words are kept"


def test_a_crash_of_a_stage_is_one_record_with_its_frame_and_the_user_sees_its_message(
    place: Place, tmp_path: Path
) -> None:
    broken = fake_classifier(tmp_path / "broken", service_ms="no number")
    models = ("--detector", str(place.detector), "--classifier", str(broken))
    done = derma("up", "synthetic://?frames=3&width=320&height=240", *JSON, *models, **place.dirs)
    assert done.returncode == 6
    assert "its last words: uncaught TypeError: unsupported operand" in done.stderr.splitlines()[-1]
    of_it = [r for r in records(place.data_dir) if r["instance"] == "classifier.0"]
    crashes = [r for r in of_it if "exception" in r]
    assert len(crashes) == sum("ready (start" in r["message"] for r in of_it) == 5
    assert all(r["camera"] == "cam0" and r["seq"] >= 0 and "TypeError" in r["exception"] for r in crashes)
