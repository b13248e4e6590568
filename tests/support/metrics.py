"""Read a process's metrics as Prometheus would."""

from __future__ import annotations

from typing import Any

from prometheus_client import generate_latest

from derma_common.telemetry import samples


def values(metrics: Any, name: str) -> dict[tuple[str, ...], float]:
    """Return label values, in the order of the labels' names, → value."""
    text = generate_latest(metrics.registry).decode()
    return {tuple(v for _, v in sorted(s.labels.items())): s.value for s in samples(text) if s.name == name}


def total(metrics: Any, name: str) -> float:
    """Return the sum over all labels."""
    return sum(values(metrics, name).values())
