"""Every metric of derma, declared once with its type and meaning, and the process's /metrics endpoint.

Labels come from closed lists: service instance, configured camera alias, outcome, reason. Nothing of a
subject, no URL, no pid. One port per process on the loopback; the supervisor writes the list of targets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

OBJECTIVE_S = 0.25  # the end-to-end objective is a bucket edge
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, OBJECTIVE_S, 0.5, 1.0, 2.5, 5.0, 10.0)


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

    @property
    def holds(self) -> bool:
        """Whether the law is true."""
        return self.captured == self.delivered + sum(self.dropped.values()) + self.in_flight


class Metrics:
    """The metrics of one process."""

    def __init__(self, instance: str) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        stage = instance.split(".", 1)[0]
        labels, values = ("stage", "instance_name"), (stage, instance)
        self.wait = Histogram(
            "derma_stage_wait_seconds", "Time between the sending of a message and the start of work on it.",
            labels, registry=registry, buckets=BUCKETS,
        ).labels(*values)  # fmt: skip
        self.service = Histogram(
            "derma_stage_service_seconds", "Time of the work of a stage on one message.",
            labels, registry=registry, buckets=BUCKETS,
        ).labels(*values)  # fmt: skip
        self.invalid = Counter(
            "derma_invalid_messages_total", "Messages that did not follow the wire format and were thrown away.",
            labels, registry=registry,
        ).labels(*values)  # fmt: skip
        self.stale = Counter(
            "derma_stale_handles_total", "Pictures that were gone or overwritten when they were to be read.",
            labels, registry=registry,
        ).labels(*values)  # fmt: skip
        self.heartbeat = Gauge(
            "derma_heartbeat_monotonic_seconds", "CLOCK_MONOTONIC of the work loop's last turn.",
            labels, registry=registry,
        ).labels(*values)  # fmt: skip
        self.restarts = Gauge(
            "derma_restarts",
            "How often this instance was started again in this run.",
            labels,
            registry=registry,
        ).labels(*values)

    def sink_only(self) -> SinkMetrics:
        """Declare what only the sink measures."""
        return SinkMetrics(self.registry)

    def classifier_only(self, room: int, instance: str) -> None:
        """Declare a classifier's capacity in crops."""
        Gauge(
            "derma_worker_room_crops", "Crops that may be outstanding at this worker.",
            ("instance_name",), registry=self.registry,
        ).labels(instance).set(room)  # fmt: skip

    def detector_only(self, pending: Callable[[], int]) -> None:
        """Declare how many crops wait for a classifier."""
        Gauge(
            "derma_pending_crops", "Crops that wait for a classifier with room.", registry=self.registry
        ).set_function(pending)

    def conservation(self, snapshot: Callable[[], Conservation]) -> None:
        """Export a camera's flow terms from one snapshot per scrape."""
        self.registry.register(_FlowCollector(snapshot))

    def model(self, name: str, sha256: str, runner: str) -> None:
        """Export which network file this process serves."""
        self.registry.register(_ModelCollector(name, sha256, runner))

    def serve(self, address: str, port: int = 0) -> MetricsServer:
        """Serve /metrics; port 0 takes a free one."""
        server, thread = start_http_server(port, addr=address, registry=self.registry)
        return MetricsServer(server, thread)


class SinkMetrics:
    """What only the sink measures: whole frames."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.frame_latency = Histogram(
            "derma_frame_latency_seconds", "End to end: picture captured to finding durable.",
            ("camera",), registry=registry, buckets=BUCKETS,
        )  # fmt: skip
        self.findings = Counter("derma_findings_total", "Findings made durable.", ("camera",), registry=registry)
        self.outcomes = Counter(
            "derma_frame_outcomes_total", "Frames given their outcome.", ("camera", "outcome", "reason"),
            registry=registry,
        )  # fmt: skip
        self.commit = Histogram(
            "derma_commit_seconds", "Time of one database commit.", registry=registry, buckets=BUCKETS
        )


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


class _FlowCollector:
    def __init__(self, snapshot: Callable[[], Conservation]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        now = self._snapshot()
        frames = GaugeMetricFamily(
            "derma_frames",
            "Frames of a camera by state, one snapshot: captured = delivered + dropped (all reasons) + in_flight.",
            labels=("camera", "state", "reason"),
        )
        terms: list[tuple[str, str, int]] = [
            ("captured", "", now.captured), ("delivered", "", now.delivered), ("in_flight", "", now.in_flight),
        ]  # fmt: skip
        terms += [("dropped", reason, n) for reason, n in now.dropped.items()]
        for state, reason, n in terms:
            frames.add_metric((now.camera, state, reason), n)
        yield frames
        slots = GaugeMetricFamily("derma_ring_slots", "Slots of a camera's ring.", labels=("camera", "state"))
        slots.add_metric((now.camera, "free"), now.slots_free)
        slots.add_metric((now.camera, "held"), now.slots - now.slots_free)
        yield slots
        age = GaugeMetricFamily("derma_picture_age_seconds", "Age of the oldest frame in flight.", labels=("camera",))
        age.add_metric((now.camera,), now.picture_age_s)
        yield age


class _ModelCollector:
    def __init__(self, name: str, sha256: str, runner: str) -> None:
        self._labels: dict[str, Any] = {"name": name, "sha256": sha256, "runner": runner}

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("derma_model", "The network file that this process serves.", value=self._labels)
