"""The summary of a run: what was captured and what became of it, by two independent counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from derma_common.store import STAGES, StoreReader

MOST_UNREADABLE = 20  # are named; the database names all


@dataclass(frozen=True, slots=True)
class Summary:
    """What `derma up` prints at the end; `dropped` maps reasons to frames, latencies are ms percentiles."""

    run: str
    captured: int
    delivered: int
    dropped: dict[str, int]
    in_flight: int
    findings: int
    fps: float
    latency_ms: dict[str, Any]
    restarts: int
    restarts_by_instance: dict[str, int]
    shm_bytes_left: int
    stored: dict[str, Any]  # the sink's rows, counted independently
    outbox_waiting: int | None = None  # entries that have not left; None without a cloud
    unreadable: list[str] = field(default_factory=list)  # the first files that were no pictures
    clock_steps_s: list[float] = field(default_factory=list)  # by which the wall clock was set; negative: back

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the summary for a person."""
        dropped = ", ".join(f"{reason} {n}" for reason, n in self.dropped.items()) or "0"
        restarts = ", ".join(f"{name} {n}" for name, n in self.restarts_by_instance.items()) or "0"
        lines = [
            f"run {self.run}",
            f"captured {self.captured} = delivered {self.delivered} + dropped {dropped} + in flight {self.in_flight}",
            f"findings {self.findings}, {self.fps:.1f} frames/s, restarts {restarts}, "
            f"shared memory left {self.shm_bytes_left} bytes",
            f"{'latency, ms':<22}{'p50':>9}{'p90':>9}{'p99':>9}",
            _row("end to end", self.latency_ms["end_to_end"]),
        ]
        for stage in STAGES:
            for part in ("wait", "service"):
                lines.append(_row(f"  {stage} {part}", self.latency_ms[stage][part]))
        if self.outbox_waiting is not None:
            wait = f"{self.outbox_waiting} entries wait (derma outbox ls)" if self.outbox_waiting else "all has left"
            lines.append(f"to the cloud: {wait}")
        if self.unreadable:
            more = self.dropped.get("unreadable", 0) - len(self.unreadable)
            lines.append(f"not readable: {', '.join(self.unreadable)}{f' and {more} more' if more > 0 else ''}")
        if self.clock_steps_s:
            steps = ", ".join(f"{step:+.1f} s" for step in self.clock_steps_s)
            lines.append(f"the wall clock was set during the run ({steps}): frames before are dated by the old one")
        return lines


def _row(name: str, percentiles: dict[str, float | None]) -> str:
    cells = "".join(f"{'–' if v is None else format(v, '.1f'):>9}" for v in percentiles.values())
    return f"{name:<22}{cells}"


@dataclass(frozen=True, slots=True)
class Flow:
    """The conservation terms over all cameras, as the captures reported them."""

    captured: int = 0
    delivered: int = 0
    dropped: dict[str, int] | None = None
    in_flight: int = 0


def add_flows(reports: list[dict[str, Any]]) -> Flow:
    """Add up the reports of all captures."""
    dropped: dict[str, int] = {}
    for report in reports:
        for reason, n in report.get("dropped", {}).items():
            dropped[reason] = dropped.get(reason, 0) + n
    return Flow(
        sum(r.get("captured", 0) for r in reports),
        sum(r.get("delivered", 0) for r in reports),
        dropped,
        sum(r.get("in_flight", 0) for r in reports),
    )


def summarise(
    run: str, flow: Flow, restarts: dict[str, int], shm_bytes_left: int, store: StoreReader, cloud: bool = False
) -> Summary:
    """Build the summary from the captures' terms and the database; `cloud`: whether anything is to leave."""
    rows = store.outcomes(run)
    duration_s = store.duration_s(run)
    return Summary(
        run, flow.captured, flow.delivered, flow.dropped or {}, flow.in_flight, rows.findings,
        round(rows.delivered / duration_s, 2) if duration_s else 0.0, rows.latency_ms, sum(restarts.values()), restarts,
        shm_bytes_left,
        {"delivered": rows.delivered, "dropped": rows.dropped}, store.waiting() if cloud else None,
        store.unreadable(run, MOST_UNREADABLE), store.clock_steps_s(run),
    )  # fmt: skip
