"""What Prometheus is told of a run: every process that is ready, under its own name, and the supervisor itself."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, replace

import pytest

from derma_cli.endpoints import TARGETS_FILE, Endpoints
from derma_common.heartbeat import Beat
from derma_common.settings import MetricsSettings, RunSettings, Settings
from derma_common.telemetry import samples
from derma_common.topology import Service, service_of


@dataclass
class Worker:
    """What is asked of a supervised process."""

    instance: str
    port: int = 4711
    ready: bool = True
    beats: bool = True

    @property
    def service(self) -> Service:
        return service_of(self.instance)

    @property
    def last_beat(self) -> Beat | None:
        return Beat(0, 1, "ready", 5, self.port, 0, None, {}) if self.beats else None


@pytest.fixture
def settings(tmp_path):
    return Settings(run=RunSettings(data_dir=str(tmp_path)))


@pytest.fixture
def targets(tmp_path):
    return lambda: json.loads((tmp_path / TARGETS_FILE).read_text())


def numbers(target):
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
        return {(s.name, *s.labels.values()): s.value for s in samples(answer.read().decode())}


def test_who_is_ready_is_listed_under_its_name_and_who_is_not_is_not(settings, targets):
    endpoints = Endpoints(settings)
    starting = [Worker("classifier.0", ready=False), Worker("classifier.1", beats=False), Worker("sink.0", port=0)]
    endpoints.show([], [Worker("detector.0", 1234), *starting], {}, {})
    own, detector = targets()
    assert own["labels"] == {"service": "supervisor", "instance": "supervisor.0"}
    assert detector == {
        "targets": ["127.0.0.1:1234"], "labels": {"service": "detector", "instance": "detector.0"},
    }  # fmt: skip


def test_the_supervisor_says_who_should_run_who_runs_and_how_often_each_was_lost(settings, targets):
    endpoints = Endpoints(settings)
    workers = [Worker("classifier.0"), Worker("classifier.1", ready=False), Worker("sink.0")]
    endpoints.show(["classifier.0", "classifier.1", "sink.0"], workers, {"classifier.1": 3}, {"classifier.1": 2})
    seen = numbers(targets()[0]["targets"][0])
    assert seen[("derma_workers", "classifier", "wanted")] == 2 and seen[("derma_workers", "classifier", "ready")] == 1
    assert seen[("derma_worker_restarts_total", "classifier", "classifier.1")] == 3
    assert seen[("derma_worker_losses_total", "classifier", "classifier.1")] == 2
    assert seen[("derma_worker_restarts_total", "sink", "sink.0")] == 0, "a counter exists before it counts"


def test_after_a_run_nothing_is_listed_so_that_nothing_seems_down(settings, targets):
    endpoints = Endpoints(settings)
    endpoints.show([], [Worker("detector.0")], {}, {})
    endpoints.close()
    assert targets() == []


def test_metrics_that_are_switched_off_open_no_port(settings, targets):
    endpoints = Endpoints(replace(settings, metrics=MetricsSettings(enabled=False)))
    endpoints.show([], [Worker("detector.0", port=0)], {}, {})
    assert targets() == []
