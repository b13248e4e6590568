"""What the workers of streams measure; the same names for every kind of work."""

from __future__ import annotations

from derma_common import telemetry
from derma_common.contract import Spec

KINDS = ("job", "picture", "findings")
OUTCOMES = ("done", "expired", "invalid", "poison")  # the last two became dead letters
CLOUD = (
    Spec("derma_entries_total", "counter", ("kind", "outcome"), "cloud workers",
         "Stream entries that were answered or stored, came too late, or became dead letters."),
    Spec("derma_entries_taken_over_total", "counter", ("kind",), "cloud workers",
         "Entries taken over from a worker that did not answer."),
    Spec("derma_entry_wait_seconds", "histogram", ("kind",), "cloud workers",
         "Arrival of an entry in Redis until a worker has it, by Redis' clock."),
    Spec("derma_entry_service_seconds", "histogram", ("kind",), "cloud workers",
         "Time of one batch of entries, from taken to answered."),
)  # fmt: skip
telemetry._SPECS.update({spec.name: spec for spec in CLOUD})


class WorkerMetrics(telemetry._Endpoint):
    """The metrics of one process that works on streams."""

    def __init__(self, kind: str) -> None:
        """`kind` is one of KINDS."""
        super().__init__()
        entries = self.counter("derma_entries_total")
        self._outcomes = {outcome: entries.labels(kind, outcome) for outcome in OUTCOMES}
        self.taken_over = self.counter("derma_entries_taken_over_total").labels(kind)
        self.wait = self.histogram("derma_entry_wait_seconds").labels(kind)
        self.service = self.histogram("derma_entry_service_seconds").labels(kind)
        self.failures = self.counter("derma_cloud_failures_total")
        self.connected = False
        self.read(lambda: [("derma_cloud_connected", (), self.connected)])

    def count(self, outcome: str, n: int = 1) -> None:
        """Count entries with one of OUTCOMES."""
        self._outcomes[outcome].inc(n)
