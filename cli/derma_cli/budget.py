"""The latency budget of a run: where its frames spent their time, and which stage to scale. From the stored times."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from derma_common.contract import OBJECTIVE_S, PARTS
from derma_common.store import StoreReader

WORTH_SCALING = 0.15  # share of end to end that frames wait for a stage
ADVICE = {
    "classifier": "derma scale classifier=N",
    "detector": "a lighter detector, more detector.threads, or with several cameras detector.workers",
    "sink": "a faster disk for run.data_dir",
}


@dataclass(frozen=True, slots=True)
class Part:
    """Waiting for a stage, or being worked on by it; `share` of end to end, None when it comes before."""

    stage: str
    part: str
    p50_ms: float | None
    p99_ms: float | None
    mean_ms: float
    share: float | None


@dataclass(frozen=True, slots=True)
class Budget:
    """The times of a run's frames."""

    run: str
    frames: int
    p50_ms: float | None
    p99_ms: float | None
    mean_ms: float
    within_objective: float | None  # share of frames
    parts: tuple[Part, ...]
    scale: str  # the stage to scale, "" when none is worth it

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return asdict(self) | {"objective_s": OBJECTIVE_S, "advice": self.advice()}

    def advice(self) -> str:
        """Return a line about what to scale."""
        if not self.frames:
            return "no frame has its times yet"
        if not self.scale:
            return "no stage keeps frames waiting: nothing to scale"
        wait = next(p for p in self.parts if (p.stage, p.part) == (self.scale, "wait"))
        share = f"{wait.share:.0%}" if wait.share is not None else "–"
        why = f"frames wait {wait.mean_ms:.0f} ms for it, {share} of end to end"
        return f"scale {self.scale}: {why}; {ADVICE[self.scale]}"

    def lines(self) -> list[str]:
        """Return the table for a person."""
        within = f"{self.within_objective:.1%}" if self.within_objective is not None else "–"
        lines = [
            f"run {self.run}: {self.frames} frames, {within} within {OBJECTIVE_S * 1000:.0f} ms",
            f"{'ms':<22}{'p50':>9}{'p99':>9}{'mean':>9}{'share':>8}",
            f"{'end to end':<22}{_cell(self.p50_ms)}{_cell(self.p99_ms)}{self.mean_ms:>9.1f}{1:>8.0%}",
        ]
        for p in self.parts:
            share = f"{p.share:>8.0%}" if p.share is not None else f"{'before':>8}"
            lines.append(f"{f'  {p.stage} {p.part}':<22}{_cell(p.p50_ms)}{_cell(p.p99_ms)}{p.mean_ms:>9.1f}{share}")
        rest = 1 - sum(p.share or 0.0 for p in self.parts)
        if self.frames:
            lines.append(f"{'  elsewhere':<22}{'':>9}{'':>9}{rest * self.mean_ms:>9.1f}{rest:>8.0%}")
        return [*lines, self.advice()]


def _cell(value: float | None) -> str:
    return f"{'–' if value is None else format(value, '.1f'):>9}"


def budget_of(store: StoreReader, run: str) -> Budget:
    """Compute the budget of a run's frames that are durable by now."""
    table, live = store.timings(run)
    whole, within_s = table[:, 0], OBJECTIVE_S * 1000
    parts = []
    for i, (stage, part) in enumerate(PARTS):
        values = table[:, 1 + i]
        # before a recording's picture counts as captured, capture waits and reads; a live one waits afterwards
        counted = values if stage != "capture" else np.where(live, values, 0.0)
        share = float(np.nansum(counted) / whole.sum()) if whole.sum() else 0.0
        before = stage == "capture" and not live.any()
        p50, p99 = _percentiles(values)
        parts.append(Part(stage, part, p50, p99, _per_frame(values), None if before else round(share, 4)))
    p50, p99 = _percentiles(whole)
    return Budget(
        run, len(table), p50, p99, _per_frame(whole), float((whole <= within_s).mean()) if len(table) else None,
        tuple(parts), _to_scale(parts),
    )  # fmt: skip


def _to_scale(parts: list[Part]) -> str:
    waits = {p.stage: p.share or 0.0 for p in parts if p.part == "wait" and p.stage in ADVICE}
    longest = max(waits, key=lambda stage: waits[stage])
    return longest if waits[longest] >= WORTH_SCALING else ""


def _per_frame(values: np.typing.NDArray[np.float64]) -> float:
    return round(float(np.nansum(values) / len(values)), 3) if len(values) else 0.0


def _percentiles(values: np.typing.NDArray[np.float64]) -> tuple[float | None, float | None]:
    known = values[~np.isnan(values)]
    if not known.size:
        return None, None
    p50, p99 = np.percentile(known, (50, 99))
    return round(float(p50), 2), round(float(p99), 2)
