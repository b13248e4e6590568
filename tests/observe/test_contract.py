"""The metrics contract: what is exported is declared and the other way round, the page is true, series are few."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from prometheus_client import generate_latest
from support.outboxes import make_database

from derma_common.cloud.streams import Access, Line
from derma_common.contract import BUCKETS, CONTRACT, LABELS, OBJECTIVE_S, PARTS, REASONS, page
from derma_common.outbox import Outbox
from derma_common.telemetry import (
    Conservation,
    ForwarderMetrics,
    Metrics,
    RemoteMetrics,
    Sample,
    SupervisorMetrics,
    WorkerState,
    samples,
)
from derma_common.workers.metrics import WorkerMetrics
from derma_forwarder.content import Content
from derma_forwarder.forwarder import Forwarder
from derma_forwarder.stage import ForwarderStage

DOCS = Path(__file__).parents[2] / "docs"
SERIES_OF_A_WORKER = 50  # of a classifier; the supervisor's series about it included
OF_GPUS = "derma_gpu_"  # tests/common/test_gpu.py


def exported(endpoint: Metrics | SupervisorMetrics) -> list[Sample]:
    return samples(generate_latest(endpoint.registry).decode())


def capture() -> Metrics:
    metrics = Metrics("capture.cam0")
    flow = Conservation("cam0", 9, 5, dict.fromkeys(REASONS, 1), 3, 3, 1, 0.1, 3, "reading", True, 1)
    metrics.conservation(lambda: flow)
    return metrics


def sink(tmp_path: Path) -> Metrics:
    metrics = Metrics("sink.0")
    metrics.sink_only(["cam0"], {"data": tmp_path, "rings": tmp_path})
    return metrics


def detector() -> Metrics:
    metrics = Metrics("detector.0")
    metrics.model("yolo", "ab" * 32, "onnx")
    metrics.detector_only(lambda: (3, 2, 8))
    return metrics


def classifier(i: int = 0) -> Metrics:
    metrics = Metrics(f"classifier.{i}")
    metrics.model("net", "cd" * 32, "onnx")
    metrics.classifier_only(8)
    return metrics


def supervisor(classifiers: int = 1) -> SupervisorMetrics:
    names = ["sink.0", "detector.0", "capture.cam0", *(f"classifier.{i}" for i in range(classifiers))]
    wanted = {"capture": 1, "detector": 1, "classifier": classifiers, "sink": 1}
    return SupervisorMetrics("1.0", lambda: wanted, lambda: [WorkerState(n, True, 0, 0, 1) for n in names])


def forwarder(tmp_path: Path) -> Metrics:
    """The real stage over a real outbox, whose line is down."""
    metrics = Metrics("forwarder.0")
    with Outbox(make_database(tmp_path / "derma.db")) as outbox:
        idle = Forwarder(outbox, cast(Content, None), lambda: Line(Access("unix:///none")), "room1", "me")
        rows = ForwarderStage(idle, outbox, 1 << 20).rows
    ForwarderMetrics(metrics, lambda: rows)
    return metrics


def remote() -> Metrics:
    metrics = Metrics("remote.0")
    RemoteMetrics(metrics, lambda: [("derma_cloud_connected", (), True), ("derma_cloud_failures_total", (), 0)])
    return metrics


def worker() -> WorkerMetrics:
    return WorkerMetrics("job")


@pytest.fixture
def everything(tmp_path: Path) -> list[Sample]:
    endpoints = [
        capture(), detector(), classifier(), sink(tmp_path), supervisor(), forwarder(tmp_path), remote(),
        worker(),
    ]  # fmt: skip
    return [sample for endpoint in endpoints for sample in exported(endpoint)]


def family(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        if name.removesuffix(suffix) in {s.name for s in CONTRACT if s.kind == "histogram"}:
            return name.removesuffix(suffix)
    return name


def test_what_is_exported_is_declared_and_what_is_declared_is_exported(everything):
    declared = {spec.name for spec in CONTRACT if not spec.name.startswith(OF_GPUS)}
    assert {family(sample.name) for sample in everything} == declared


def test_every_series_has_the_labels_that_the_contract_says(everything):
    of = {spec.name: spec for spec in CONTRACT}
    for sample in everything:
        assert set(sample.labels) - {"le"} == set(of[family(sample.name)].labels), sample.name
        assert set(sample.labels) <= set(LABELS)


def test_the_page_in_the_docs_is_the_contract():
    assert (DOCS / "metrics.md").read_text() == page(), "run: python -m derma_common.telemetry > docs/metrics.md"


def test_names_say_type_and_unit():
    for spec in CONTRACT:
        assert spec.name.startswith("derma_") and spec.meaning.endswith("."), spec.name
        assert spec.name.endswith("_total") == (spec.kind == "counter"), spec.name
        assert spec.kind != "histogram" or spec.name.endswith("_seconds"), spec.name
    assert len({spec.name for spec in CONTRACT}) == len(CONTRACT)
    assert OBJECTIVE_S in BUCKETS


def test_a_reason_from_outside_the_list_is_counted_as_other():
    metrics = Metrics("sink.0")
    metrics.sink_only(["cam0"]).outcome("cam0", "dropped", "subject-4711")
    (other,) = [s for s in exported(metrics) if s.labels.get("reason") == "other"]
    assert other.value == 1 and not [s for s in exported(metrics) if "subject-4711" in s.labels.values()]


def test_where_a_frame_spent_its_time_adds_up():
    metrics = Metrics("sink.0")
    sink = metrics.sink_only()
    sink.spent([10**9, 2 * 10**9, 0, 0, None, None, 5 * 10**8, 0])
    sink.spent([10**9, 0, 0, 0, 0, 0, 0, 0])
    found = [s for s in exported(metrics) if s.name == "derma_frame_stage_seconds_total"]
    spent = {(s.labels["stage"], s.labels["part"]): s.value for s in found}
    assert spent == dict.fromkeys(PARTS, 0.0) | {
        ("capture", "wait"): 2.0, ("capture", "service"): 2.0, ("sink", "wait"): 0.5,
    }  # fmt: skip


def test_the_age_of_a_heartbeat_and_of_a_cameras_silence_grow_without_anybody_reporting(monkeypatch):
    metrics, now = capture(), [5_000_000_001]
    monkeypatch.setattr("derma_common.telemetry.time.monotonic_ns", lambda: now[0])
    silence = [s.value for s in exported(metrics) if s.name == "derma_camera_silence_seconds"]
    ages = [s.value for s in exported(supervisor()) if s.name == "derma_worker_heartbeat_age_seconds"]
    assert silence == [5.0] and set(ages) == {5.0}


def test_a_camera_is_in_exactly_one_state():
    states = {s.labels["state"]: s.value for s in exported(capture()) if s.name == "derma_camera_state"}
    assert states == {"reading": 1.0, "silent": 0.0, "ended": 0.0}


def test_a_hundred_workers_have_at_most_fifty_series_each(tmp_path):
    """Stated in docs/observability.md: below 5,500 series in all with 100 classifiers and one camera."""
    fleet = [classifier(i) for i in range(100)]
    workers = sum(len(exported(metrics)) for metrics in fleet)
    about_them = len(exported(supervisor(100))) - len(exported(supervisor(0)))
    others = (capture(), detector(), sink(tmp_path), forwarder(tmp_path), remote(), supervisor(0))
    rest = sum(len(exported(metrics)) for metrics in others)
    assert workers + about_them <= 100 * SERIES_OF_A_WORKER
    assert workers + about_them + rest < 5500
