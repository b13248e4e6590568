"""What the workers of streams measure; the same names for every kind of work."""

from __future__ import annotations

from derma_common.contract import ENTRY_OUTCOMES
from derma_common.telemetry import Endpoint


class WorkerMetrics(Endpoint):
    """The metrics of one process that works on streams."""

    def __init__(self, kind: str) -> None:
        """`kind` is one of contract.ENTRY_KINDS."""
        super().__init__()
        entries = self.counter("derma_entries_total")
        self._outcomes = {outcome: entries.labels(kind, outcome) for outcome in ENTRY_OUTCOMES}
        self.taken_over = self.counter("derma_entries_taken_over_total").labels(kind)
        self.wait = self.histogram("derma_entry_wait_seconds").labels(kind)
        self.service = self.histogram("derma_entry_service_seconds").labels(kind)
        self.failures = self.counter("derma_cloud_failures_total")
        self.connected = False
        self.read(lambda: [("derma_cloud_connected", (), self.connected)])

    def count(self, outcome: str, n: int = 1) -> None:
        """Count entries with one of contract.ENTRY_OUTCOMES."""
        self._outcomes[outcome].inc(n)
