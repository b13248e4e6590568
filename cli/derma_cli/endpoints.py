"""What Prometheus is told of a run: where each process serves /metrics, and the supervisor's own numbers."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import derma_common
from derma_cli.process import Process
from derma_common.settings import Settings
from derma_common.telemetry import SupervisorMetrics, WorkerState
from derma_common.topology import service_of

log = logging.getLogger(__name__)
TARGETS_FILE = "prometheus-targets.json"


class Endpoints:
    """The list of targets in the data directory and the supervisor's endpoint."""

    def __init__(self, settings: Settings) -> None:
        """Serve the supervisor's /metrics, unless the settings switch metrics off."""
        self._path, self._address = settings.data_dir / TARGETS_FILE, settings.metrics.address
        self._written = ""
        self._wanted: dict[str, int] = {}
        self._seen: tuple[WorkerState, ...] = ()  # replaced as a whole, so another thread may read it
        self._port = 0
        if settings.metrics.enabled:
            metrics = SupervisorMetrics(derma_common.__version__, lambda: self._wanted, lambda: self._seen)
            self._port = metrics.serve(self._address).port  # never closed: that would only delay the end of the run

    def show(
        self,
        desired: Iterable[str],
        processes: Iterable[Process],
        restarts: Mapping[str, int],
        losses: Mapping[str, int],
    ) -> None:
        """Take in the present state; the list is written when it changed."""
        processes = list(processes)
        self._wanted = dict(Counter(service_of(name).value for name in desired))
        self._seen = tuple(
            WorkerState(
                p.instance, p.ready, restarts.get(p.instance, 0), losses.get(p.instance, 0),
                p.last_beat.beat_ns if p.last_beat else 0,
            )
            for p in processes
        )  # fmt: skip
        own = [self._target("supervisor", "supervisor.0", self._port)] if self._port else []
        self._write(own + [
            self._target(p.service.value, p.instance, p.last_beat.metrics_port)
            for p in processes
            if p.ready and p.last_beat is not None and p.last_beat.metrics_port
        ])  # fmt: skip

    def _target(self, service: str, instance: str, port: int) -> dict[str, object]:
        # `instance` in place of Prometheus' own host:port, which would change with every restart
        return {"targets": [f"{self._address}:{port}"], "labels": {"service": service, "instance": instance}}

    def _write(self, groups: list[dict[str, object]]) -> None:
        text = json.dumps(groups, indent=1)
        if text != self._written:
            draft = self._path.with_suffix(".part")
            try:
                draft.write_text(text, encoding="utf-8")
                draft.replace(self._path)
            except OSError as error:  # a full disk: frames go on without their graphs
                log.warning("the list of Prometheus' targets cannot be written: %s", error)
            self._written = text

    def close(self) -> None:
        """Leave an empty list: the run is over, nothing is down."""
        self._write([])
