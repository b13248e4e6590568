"""Every metric of derma, declared once with its type and meaning, and the process's /metrics endpoint.

Labels come from closed lists (`LABELS`): nothing of a subject, no URL, no pid. One port per process on the loopback;
the supervisor writes the list of targets and adds the labels `service` and `instance`, so metrics repeat neither.
`python -m derma_common.telemetry > docs/metrics.md` writes the page of the contract.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from wsgiref.simple_server import WSGIServer

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from derma_common.contract import BUCKETS, CAMERA_STATES, CONTRACT, OBJECTIVE_S, PARTS, REASONS, REMOTE_RESULTS, page
from derma_common.errors import ResourceError
from derma_common.gpu import Row, open_gpus

__all__ = [
    "BUCKETS",
    "OBJECTIVE_S",
    "Conservation",
    "Endpoint",
    "Metrics",
    "Sample",
    "SinkMetrics",
    "SupervisorMetrics",
    "samples",
]

prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series of every counter
_SPECS = {spec.name: spec for spec in CONTRACT}


@dataclass(frozen=True, slots=True)
class Conservation:
    """captured = delivered + Σ dropped + in_flight, of one camera, read as one snapshot."""

    camera: str
    captured: int = 0
    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    slots: int = 0
    slots_free: int = 0
    picture_age_s: float = 0.0
    credits: int = 0
    state: str = "reading"  # one of CAMERA_STATES
    live: bool = False
    picture_ns: int = 0  # when a live source last gave a picture

    @property
    def holds(self) -> bool:
        """Whether the law is true."""
        return self.captured == self.delivered + sum(self.dropped.values()) + self.in_flight


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What the supervisor knows of one process."""

    worker: str
    ready: bool
    restarts: int
    losses: int
    beat_ns: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a scrape."""

    name: str
    labels: dict[str, str]
    value: float


def samples(text: str) -> list[Sample]:
    """Parse a scrape. Raises ValueError for what is none."""
    return [Sample(s.name, s.labels, s.value) for f in text_string_to_metric_families(text) for s in f.samples]


class Endpoint:
    """A process's registry with what every process exports, and its server."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(namespace="derma", registry=self.registry)

    def read(self, rows: Callable[[], Iterable[Row]]) -> None:
        """Export what one call of `rows` returns, at every scrape; it runs in the server's thread."""
        self.registry.register(_Reading(rows))

    def counter(self, name: str) -> prometheus.Counter:
        """Make a counter of the contract."""
        return prometheus.Counter(*_declared(name), registry=self.registry)

    def histogram(self, name: str) -> prometheus.Histogram:
        """Make a histogram of the contract."""
        return prometheus.Histogram(*_declared(name), registry=self.registry, buckets=BUCKETS)

    def serve(self, address: str, port: int = 0) -> MetricsServer:
        """Serve /metrics; port 0 takes a free one. Raises ResourceError."""
        try:
            server, thread = prometheus.start_http_server(port, addr=address, registry=self.registry)
        except OSError as error:
            raise ResourceError(
                f"metrics cannot be served on {address}:{port}: {error.strerror}; set metrics.address to an address of "
                "this machine, or metrics.enabled = false"
            ) from error
        return MetricsServer(server, thread)


class Metrics(Endpoint):
    """The metrics of one service process."""

    def __init__(self, instance: str) -> None:
        super().__init__()
        stage = instance.split(".", 1)[0]
        self.wait = self.histogram("derma_stage_wait_seconds").labels(stage)
        self.service = self.histogram("derma_stage_service_seconds").labels(stage)
        self.invalid = self.counter("derma_invalid_messages_total").labels(stage)
        self.stale = self.counter("derma_stale_handles_total").labels(stage)

    def sink_only(self, cameras: Iterable[str] = (), places: Mapping[str, Path] | None = None) -> SinkMetrics:
        """Declare what only the sink measures; `places` maps storage places to folders whose room is watched."""
        if places:
            self.read(lambda: _storage(places))
        return SinkMetrics(self, cameras)

    def classifier_only(self, room: int) -> None:
        """Declare a classifier's capacity in crops."""
        self.read(lambda: [("derma_worker_room_crops", (), room)])

    def detector_only(self, work: Callable[[], tuple[int, int, int]]) -> None:
        """Declare the crops that wait, those that workers hold, and the room that workers offer in all."""
        names = ("derma_pending_crops", "derma_outstanding_crops", "derma_offered_room_crops")
        self.read(lambda: [(name, (), n) for name, n in zip(names, work(), strict=True)])

    def conservation(self, snapshot: Callable[[], Conservation]) -> None:
        """Export a camera's flow terms from one snapshot per scrape."""
        self.read(lambda: _flow(snapshot(), time.monotonic_ns()))

    def model(self, name: str, sha256: str, runner: str) -> None:
        """Export which network file this process serves."""
        self.read(lambda: [("derma_model_info", (name, sha256, runner), 1)])


class ForwarderMetrics:
    """What only the forwarder measures."""

    def __init__(self, endpoint: Endpoint, state: Callable[[], Iterable[Row]]) -> None:
        """`state` returns rows of the contract, from any thread."""
        endpoint.read(state)
        self.delay = endpoint.histogram("derma_outbox_delay_seconds")


class RemoteMetrics:
    """What only the hand-over to remote classifiers measures."""

    def __init__(self, endpoint: Endpoint, state: Callable[[], Iterable[Row]]) -> None:
        """`state` returns rows of the contract, from any thread."""
        endpoint.read(state)
        self.seconds = endpoint.histogram("derma_remote_seconds")
        crops = endpoint.counter("derma_remote_crops_total")
        self.crops = {result: crops.labels(result) for result in REMOTE_RESULTS}


class SinkMetrics:
    """What only the sink measures: whole frames."""

    def __init__(self, endpoint: Endpoint, cameras: Iterable[str] = ()) -> None:
        self.frame_latency = endpoint.histogram("derma_frame_latency_seconds")
        self.findings = endpoint.counter("derma_findings_total")
        self.outcomes = endpoint.counter("derma_frame_outcomes_total")
        self.commit = endpoint.histogram("derma_commit_seconds")
        spent = endpoint.counter("derma_frame_stage_seconds_total")
        self._spent = [spent.labels(stage, part) for stage, part in PARTS]
        for camera in cameras:  # a counter that appears at 1 hides its first event from rate()
            self.frame_latency.labels(camera)
            self.findings.labels(camera)
            self.outcomes.labels(camera, "delivered", "")
            for reason in REASONS:
                self.outcomes.labels(camera, "dropped", reason)

    def outcome(self, camera: str, outcome: str, reason: str) -> None:
        """Count a frame's outcome."""
        known = not reason or reason in REASONS
        self.outcomes.labels(camera, outcome, reason if known else "other").inc()

    def spent(self, parts_ns: Iterable[int | None]) -> None:
        """Add up where a frame spent its time; the order is that of PARTS."""
        for counter, ns in zip(self._spent, parts_ns, strict=True):
            counter.inc(max(0, ns or 0) / 1e9)


class SupervisorMetrics(Endpoint):
    """What is best known where processes are started and watched."""

    def __init__(
        self, version: str, wanted: Callable[[], Mapping[str, int]], seen: Callable[[], Iterable[WorkerState]]
    ) -> None:
        """`wanted` maps stages to the workers that should run; `seen` returns a snapshot, from any thread."""
        super().__init__()
        self.read(lambda: [("derma_build_info", (version,), 1)])
        self.read(lambda: _workers(wanted(), list(seen()), time.monotonic_ns()))
        self.read(open_gpus())


class MetricsServer:
    """The running endpoint."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server, self._thread = server, thread
        self.port = int(server.server_port)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=2)


class _Reading:
    """Rows of one call as metric families: what is scraped together was true together."""

    def __init__(self, rows: Callable[[], Iterable[Row]]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, values, number in self._rows():
            if name not in families:
                kind = CounterMetricFamily if _SPECS[name].kind == "counter" else GaugeMetricFamily
                families[name] = kind(name, _SPECS[name].meaning, labels=_SPECS[name].labels)
            families[name].add_metric(values, number)
        yield from families.values()


def _declared(name: str) -> tuple[str, str, tuple[str, ...]]:
    return name, _SPECS[name].meaning, _SPECS[name].labels


def _flow(now: Conservation, now_ns: int) -> Iterator[Row]:
    camera = now.camera
    states = {"captured": now.captured, "delivered": now.delivered, "in_flight": now.in_flight}
    yield from (("derma_frames", (camera, state, ""), n) for state, n in states.items())
    yield from (("derma_frames", (camera, "dropped", reason), n) for reason, n in now.dropped.items())
    yield "derma_credits", (camera,), now.credits
    yield "derma_ring_slots", (camera, "free"), now.slots_free
    yield "derma_ring_slots", (camera, "held"), now.slots - now.slots_free
    yield "derma_picture_age_seconds", (camera,), now.picture_age_s
    yield "derma_camera_live", (camera,), now.live
    yield from (("derma_camera_state", (camera, state), state == now.state) for state in CAMERA_STATES)
    if now.live and now.picture_ns:
        yield "derma_camera_silence_seconds", (camera,), max(0, now_ns - now.picture_ns) / 1e9


def _workers(wanted: Mapping[str, int], seen: list[WorkerState], now_ns: int) -> Iterator[Row]:
    for stage, n in wanted.items():
        yield "derma_workers", (stage, "wanted"), n
        yield "derma_workers", (stage, "ready"), sum(w.ready for w in seen if w.worker.startswith(f"{stage}."))
    for w in seen:
        labels = (w.worker.split(".", 1)[0], w.worker)
        yield "derma_worker_restarts_total", labels, w.restarts
        yield "derma_worker_losses_total", labels, w.losses
        if w.beat_ns:
            yield "derma_worker_heartbeat_age_seconds", labels, max(0, now_ns - w.beat_ns) / 1e9


def _storage(places: Mapping[str, Path]) -> Iterator[Row]:
    for place, path in places.items():
        room = os.statvfs(path)
        yield "derma_storage_free_bytes", (place,), room.f_bavail * room.f_frsize
        yield "derma_storage_size_bytes", (place,), room.f_blocks * room.f_frsize


if __name__ == "__main__":
    print(page(), end="")
