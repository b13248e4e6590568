"""Read the spans that a run wrote, flat."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from derma_common.tracing import TRACES_FILE


@dataclass(frozen=True)
class Written:
    """One span of the file."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: list[tuple[str, str]]  # span id, why
    error: str

    @property
    def duration_ns(self) -> int:
        return self.ended_ns - self.started_ns


def need_opentelemetry() -> None:
    """Skip the test where the extra is not installed."""
    pytest.importorskip("opentelemetry.sdk.trace", reason="needs the extra `trace` (pip install 'derma[trace]')")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra `trace`")


def read_spans(data_dir: Path) -> list[Written]:
    """Return all spans of the file, in its order."""
    spans = []
    for line in (data_dir / TRACES_FILE).read_text().splitlines():
        (of_resource,) = json.loads(line)["resourceSpans"]
        (of_scope,) = of_resource["scopeSpans"]
        spans += [_span(span, of_resource["resource"]) for span in of_scope["spans"]]
    return spans


def _span(span: dict[str, Any], resource: dict[str, Any]) -> Written:
    return Written(
        span["name"], span["traceId"], span["spanId"], span["parentSpanId"], int(span["startTimeUnixNano"]),
        int(span["endTimeUnixNano"]), _plain(span["attributes"]), _plain(resource["attributes"]),
        [(link["spanId"], _plain(link["attributes"])["derma.link"]) for link in span["links"]],
        span["status"].get("message", ""),
    )  # fmt: skip


def _plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    values = {a["key"]: a["value"] for a in attributes}
    return {
        key: int(v["intValue"]) if "intValue" in v else v.get("doubleValue", v.get("stringValue"))
        for key, v in values.items()
    }
