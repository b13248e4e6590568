"""The real pipeline watched by a real Prometheus: every expression means something, and an alert really fires."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.mjpeg_camera import MjpegCamera
from support.observing import alert_operands, board_expressions, free_port, recorded
from support.redis_server import MISSING, RedisServer, available
from support.runs import Run, environment, up, wait_for
from support.workers import worker

from derma_common.inference.fake import fake_classifier, fake_detector

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason=MISSING),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus (apt install prometheus)"),
]
SERVICES = (
    "sink.0", "capture.skin", "capture.room", "detector.0", "classifier.0", "remote.0", "forwarder.0",
)  # fmt: skip
NO_GPU = "derma_gpu_"  # these machines have none; tests/common/test_gpu.py feeds NVML's answers to the same code


@dataclass
class Watched:
    """A run and the Prometheus that watches it."""

    run: Run
    camera: MjpegCamera
    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask Prometheus' API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def series(self, expression: str) -> list[float]:
        """Return the present values of an expression."""
        return [float(series["value"][1]) for series in self.ask("query", query=expression)["result"]]


@contextmanager
def observe(run: Run) -> Iterator[str]:
    """Start `derma observe` with a scrape every second; give Prometheus' address."""
    command = [sys.executable, "-m", "derma_cli", "observe", "--json", "--interval", "1", "--port", str(free_port())]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(run.data_dir, run.shm_dir),
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["prometheus"])
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Run two live cameras through fake models and watch them until rates can be computed."""
    folder, shm = tmp_path_factory.mktemp("observe"), Path(tempfile.mkdtemp(prefix="derma-test-", dir="/dev/shm"))
    models = ("--detector", str(fake_detector(folder / "detector", service_ms=15)),
              "--classifier", str(fake_classifier(folder / "classifier", service_ms=8)))  # fmt: skip
    with ExitStack() as closing:
        closing.callback(shutil.rmtree, shm)
        camera = closing.enter_context(MjpegCamera())
        server = RedisServer(folder / "redis")
        closing.callback(server.stop)
        cloud = ("--set", f"cloud.redis={server.access().address}", "--set", "cloud.pictures=all", "--classify", "both",
                 "--set", "classifier.room=1")  # fmt: skip
        closing.enter_context(
            worker("derma_classifier.remote", "--model", models[3], env=server.settings(""), log=folder / "worker.log")
        )
        sources = ("skin=synthetic://?frames=0&fps=20&width=320&height=240", f"room={camera.url}")
        run = closing.enter_context(up(*sources, *models, *cloud, data_dir=folder / "data", shm_dir=shm))
        run.wait_ready(*SERVICES)
        watched = Watched(run, camera, closing.enter_context(observe(run)))
        enough = "min(count_over_time(derma_frame_latency_seconds_count[1m])) > 8"
        wait_for(lambda: watched.series(enough), "some scrapes of the sink", 60)
        answered = 'rate(derma_remote_crops_total{result="answered"}[30s]) > 0'
        wait_for(lambda: watched.series(answered), "crops classified elsewhere", 60)
        yield watched
        run.process.send_signal(signal.SIGINT)
        run.finish()


@pytest.mark.parametrize("board", ["derma-latency", "derma-pipeline", "derma-host", "derma-cloud"])
def test_every_panel_shows_something(watched: Watched, board: str) -> None:
    found = {e: watched.series(e) for _, e in board_expressions(board) if not e.startswith(NO_GPU)}
    assert found and not [e for e, values in found.items() if not values], "these expressions give no series"
    assert not [e for e, values in found.items() if any(math.isnan(v) for v in values)], "these give NaN"


def test_every_recording_rule_and_both_sides_of_every_alert_exist(watched: Watched) -> None:
    expressions = [*recorded(), *alert_operands()]
    found = {e: watched.series(e) for e in expressions}
    assert not [e for e, values in found.items() if not values], "these expressions give no series"
    assert not [e for e, values in found.items() if any(math.isnan(v) for v in values)], "these give NaN"
    groups = watched.ask("rules")["groups"]
    broken = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]
    assert groups and not broken


def test_every_process_answers_and_promtool_likes_what_it_says(watched: Watched) -> None:
    targets = watched.ask("targets", state="active")["activeTargets"]
    instances = {target["labels"]["instance"] for target in targets}
    assert instances == {"supervisor.0", *SERVICES}
    for target in targets:
        assert (target["health"], target["lastError"]) == ("up", "")
        with urllib.request.urlopen(target["scrapeUrl"], timeout=10) as answer:
            text = answer.read()
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b""), target["labels"]["instance"]
        assert str(os.getpid()).encode() not in re.findall(rb'"(\d+)"', text)


def test_top_shows_what_flows_what_waits_and_who_works(watched: Watched) -> None:
    command = [sys.executable, "-m", "derma_cli", "top", "--json", "--interval", "1"]
    environ = environment(watched.run.data_dir, watched.run.shm_dir)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert set(seen["cameras"]) == {"skin", "room"} and seen["cameras"]["skin"]["delivered"] > 0
    assert seen["stages"]["classifier"]["messages"] > 0 and seen["stages"]["classifier"]["service_ms"]["p50"] > 0
    assert seen["workers"]["sink.0"]["memory_mb"] > 10 and seen["workers"]["sink.0"]["beat_s"] < 5
    assert 0 < seen["end_to_end_ms"]["p50"] <= seen["end_to_end_ms"]["p99"]


def test_the_latency_budget_of_the_present_run_adds_up(watched: Watched) -> None:
    done = watched.run.derma("top", "--once", "--json")
    budget = json.loads(done.stdout)
    shares = [part["share"] for part in budget["parts"] if part["share"] is not None]
    assert done.returncode == 0 and budget["frames"] > 20 and 0.8 < sum(shares) < 1.05
    assert watched.run.derma("top", "--once").stdout.startswith(f"run {budget['run']}: ")


def test_no_series_names_an_address_or_a_process(watched: Watched) -> None:
    values = [value for series in watched.ask("series", **{"match[]": '{job="derma"}'}) for value in series.values()]
    assert values and not [v for v in values if "://" in v or re.search(r"127\.0\.0\.1|:\d{4,}", v)]


def test_a_run_has_a_bounded_number_of_series(watched: Watched) -> None:
    assert watched.series('max(scrape_samples_scraped{job="derma"})') < [200.0]


def test_a_stopped_camera_fires_its_alert(watched: Watched) -> None:
    """Last: it stops the camera. The rules are the shipped ones, unshortened: silent for 5 s, and 10 s more."""
    watched.camera.freeze()

    def firing() -> list[dict[str, Any]]:
        alerts = watched.ask("alerts")["alerts"]
        return [a for a in alerts if a["labels"]["alertname"] == "DermaCameraSilent" and a["state"] == "firing"]

    (alert,) = wait_for(firing, "the alert of the silent camera", 60)
    assert (alert["labels"]["camera"], alert["labels"]["severity"]) == ("room", "page")
    assert alert["annotations"]["summary"].startswith("room has given no picture for ")
    with urllib.request.urlopen(alert["annotations"]["runbook_url"], timeout=10) as page:
        assert page.read().decode().startswith("# A camera is silent"), "the alert's link leads to its runbook"
    assert watched.series('derma_camera_state{camera="room",state="silent"}') == [1.0]
    assert watched.series('derma_camera_state{camera="skin",state="reading"}') == [1.0], "the other camera goes on"
