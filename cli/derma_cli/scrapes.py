"""What all processes of a run say of themselves at one moment, and what changed between two moments."""

from __future__ import annotations

import json
import math
import time
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from derma_cli.endpoints import TARGETS_FILE
from derma_common.telemetry import Sample, samples

ANSWER_WITHIN_S = 1.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the loopback needs no proxy


@dataclass(frozen=True)
class Scrape:
    """One look at all endpoints; an instance that did not answer has None."""

    at: float
    by_instance: dict[str, list[Sample] | None]

    def values(self, name: str, **labels: str) -> list[tuple[str, dict[str, str], float]]:
        """Return (instance, labels, value) of every series of a metric that has these labels."""
        return [
            (instance, s.labels, s.value)
            for instance, found in self.by_instance.items()
            for s in found or ()
            if s.name == name and labels.items() <= s.labels.items()
        ]

    def total(self, name: str, instance: str = "", **labels: str) -> float:
        """Return the sum of a metric's series, of one instance or of all."""
        return sum(v for i, _, v in self.values(name, **labels) if instance in ("", i))


def scrape(data_dir: Path) -> Scrape:
    """Ask every endpoint of the run, all at once."""
    try:
        groups = json.loads((data_dir / TARGETS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        groups = []
    targets = {group["labels"]["instance"]: group["targets"][0] for group in groups}
    at = time.monotonic()
    with ThreadPoolExecutor(max_workers=16) as pool:
        return Scrape(at, dict(zip(targets, pool.map(_ask, targets.values()), strict=True)))


def _ask(target: str) -> list[Sample] | None:
    try:
        with _DIRECT.open(f"http://{target}/metrics", timeout=ANSWER_WITHIN_S) as answer:
            return samples(answer.read().decode())
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Change:
    """Two scrapes; a counter that fell was started again at 0."""

    before: Scrape
    after: Scrape

    @property
    def seconds(self) -> float:
        """The time between them."""
        return max(1e-3, self.after.at - self.before.at)

    def increase(self, name: str, instance: str = "", **labels: str) -> float:
        """Return by how much a metric's series grew, summed."""
        return sum(self._grown(name, instance, labels).values())

    def rate(self, name: str, instance: str = "", **labels: str) -> float:
        """Return the increase per second."""
        return self.increase(name, instance, **labels) / self.seconds

    def _grown(self, name: str, instance: str, labels: Mapping[str, str]) -> dict[tuple[str, str], float]:
        old = {_key(i, found): v for i, found, v in self.before.values(name, **labels)}
        grown = {}
        for i, found, value in self.after.values(name, **labels):
            if instance in ("", i):
                known = old.get(_key(i, found), 0.0)
                grown[_key(i, found)] = value - known if value >= known else value
        return grown

    def quantile(self, q: float, histogram: str, instance: str = "", **labels: str) -> float | None:
        """Return a quantile of what a histogram took in between; None when that is nothing."""
        counts: dict[float, float] = {}
        for i, found, _ in self.after.values(f"{histogram}_bucket", **labels):
            if instance in ("", i):
                counts.setdefault(float(found["le"]), 0.0)
        for edge in counts:
            text = next(f["le"] for _, f, _ in self.after.values(f"{histogram}_bucket") if float(f["le"]) == edge)
            counts[edge] = self.increase(f"{histogram}_bucket", instance, **labels, le=text)
        return quantile(q, counts)


def _key(instance: str, labels: Mapping[str, str]) -> tuple[str, str]:
    return instance, json.dumps(labels, sort_keys=True)


def quantile(q: float, cumulative: Mapping[float, float]) -> float | None:
    """Return a quantile of cumulative buckets (upper edge → count), as PromQL's histogram_quantile does."""
    edges = sorted(cumulative)
    total = cumulative[edges[-1]] if edges else 0.0
    if not total:
        return None
    rank = q * total
    at = next(i for i, edge in enumerate(edges) if cumulative[edge] >= rank)
    if math.isinf(edges[at]):
        return edges[at - 1] if at else None
    low, below = (edges[at - 1], cumulative[edges[at - 1]]) if at else (0.0, 0.0)
    within = cumulative[edges[at]] - below
    return edges[at] if not within else low + (edges[at] - low) * (rank - below) / within
