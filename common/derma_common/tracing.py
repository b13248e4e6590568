"""A frame's way through the stages as spans: the context that travels with it, and OpenTelemetry behind one door.

A context is the four fields of W3C's traceparent in binary, 26 bytes: version 0, trace id (16), span id (8), flags.
Capture makes one for each frame and decides there whether it is sampled; every stage that works on the frame puts its
own span id in, so that what follows has it as its parent. While tracing is off nobody looks at them, and OpenTelemetry
(extra `trace`) is not even imported. Times are CLOCK_MONOTONIC; a process converts them to wall time by one
difference, taken at its start.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from derma_common.errors import ConfigError, ResourceError
from derma_common.messages import Crops, Frame
from derma_common.settings import Settings, TracingSettings

TRACES_FILE = "traces.jsonl"
MAX_FILE_BYTES = 256 << 20  # a forgotten switch must not fill the disk
EXPORT_EVERY_MS = 1000
EXPORT_WITHIN_S = 2.0  # also at the process's end, which has supervisor.stop_timeout_s in all
QUEUE = 8192  # spans that wait for their export; more are dropped
_VERSION, _SAMPLED = b"\0", 1
_ALL_TRACES = 1 << 56  # of W3C's trace ids the last 56 bits are random: the sampling decision reads those
log = logging.getLogger(__name__)


def is_sampled(trace: bytes) -> bool:
    """Say whether spans of this context are recorded; no context is not."""
    return bool(trace) and trace[-1] & _SAMPLED == _SAMPLED


class Head:
    """Begins the traces of one camera's frames."""

    def __init__(self, run: str, camera: str, settings: TracingSettings, tracer: Tracer | None = None) -> None:
        self._key = blake2b(f"{run}/{camera}".encode(), digest_size=32).digest()
        self._sampled_below = round(settings.sample_ratio * _ALL_TRACES) if settings.enabled else 0
        self._tracer = tracer

    def context(self, seq: int, attempt: int) -> bytes:
        """Return a frame's context. A frame that is captured again after a restart goes on in the same trace."""
        ids = blake2b(seq.to_bytes(8), digest_size=24, key=self._key).digest()
        span_id = int.from_bytes(ids[16:]) ^ attempt
        sampled = int.from_bytes(ids[9:16]) < self._sampled_below
        return b"".join((_VERSION, ids[:16], span_id.to_bytes(8), b"\1" if sampled else b"\0"))

    def captured(self, frame: Frame) -> None:
        """Record the span of a frame's capture, from its picture (or the start of its reading) to its sending."""
        if self._tracer is not None and is_sampled(frame.trace):
            started_ns = min(frame.captured_ns, frame.sent_ns - frame.capture_service_ns)
            attributes = about(frame.camera, frame.seq, frame.attempt, frame.capture_wait_ns)
            self._tracer.start("capture", frame.trace, started_ns, attributes, root=True).end(frame.sent_ns)


def about(camera: str, seq: int, attempt: int, wait_ns: int) -> dict[str, Any]:
    """Return what every span says: whose it is, and how long the work had waited before its start."""
    return {"derma.camera": camera, "derma.seq": seq, "derma.attempt": attempt, "derma.wait_ms": wait_ns / 1e6}


class Span:
    """A stage's work on a frame, being recorded."""

    def __init__(self, span: Any, wall_ns: int) -> None:
        """`span` is OpenTelemetry's, `wall_ns` what makes wall time of monotonic time."""
        self._span, self._wall_ns = span, wall_ns
        ids = span.get_span_context()
        self.context = b"".join((_VERSION, ids.trace_id.to_bytes(16), ids.span_id.to_bytes(8), bytes([_SAMPLED])))

    def link(self, other: bytes, why: str) -> None:
        """Point to another span that this one has to do with."""
        self._span.add_link(_span_context(other), {"derma.link": why})

    def end(self, ended_ns: int, error: str = "") -> None:
        """Finish the span and hand it to the exporter."""
        if error:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end(ended_ns + self._wall_ns)


class Tracer:
    """Records the spans of one process and exports them from a thread of its own."""

    def __init__(self, settings: Settings, run: str, instance: str) -> None:
        """Start the exporter. Raises ConfigError when the extra is not installed."""
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON

            exporter = _exporter(settings)
        except ImportError as error:
            raise ConfigError(
                f"tracing.enabled needs the extra: pip install 'derma[trace]' ({error.name} is missing)"
            ) from error
        resource = Resource({
            "service.namespace": "derma", "service.name": f"derma-{instance.partition('.')[0]}",
            "service.instance.id": instance, "derma.run": run,
        })  # fmt: skip
        self._ids = _Ids()
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=QUEUE, schedule_delay_millis=EXPORT_EVERY_MS)
        )
        self._tracer = self._provider.get_tracer("derma")
        # of three readings the one that was least disturbed
        self._wall_ns = max(time.time_ns() - time.monotonic_ns() for _ in range(3))
        self._name = instance.partition(".")[0]

    def start(
        self, name: str, trace: bytes, started_ns: int, attributes: Mapping[str, Any], *, root: bool = False
    ) -> Span:
        """Start a span whose parent is the context `trace`, or which, as a root, is that context's span itself."""
        from opentelemetry.context import Context
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context

        if root:
            self._ids.given = (int.from_bytes(trace[1:17]), int.from_bytes(trace[17:25]))
        parent = Context() if root else set_span_in_context(NonRecordingSpan(_span_context(trace)), Context())
        span = self._tracer.start_span(name, parent, attributes=attributes, start_time=started_ns + self._wall_ns)
        return Span(span, self._wall_ns)

    def begin(self, work: Frame | Crops, wait_ns: int, started_ns: int) -> tuple[Frame | Crops, Span | None]:
        """Start the span of this process's work on a frame; return the work with it as the parent of what follows."""
        frame = work if isinstance(work, Frame) else work.frame
        if not is_sampled(frame.trace):
            return work, None
        attributes = about(frame.camera, frame.seq, frame.attempt, wait_ns)
        if isinstance(work, Crops):
            attributes |= {"derma.crops": len(work.squares), "derma.first": work.first}
        span = self.start(self._name, frame.trace, started_ns, attributes)
        frame = replace(frame, trace=span.context)
        return (frame if isinstance(work, Frame) else replace(work, frame=frame)), span

    def close(self) -> None:
        """Export what is left and stop."""
        self._provider.shutdown()


class _Ids:
    """OpenTelemetry's source of ids: random ones, but those of a trace's root are given."""

    given: tuple[int, int] | None = None

    def __init__(self) -> None:
        self._random = random.Random(os.urandom(32))  # asking the kernel for each costs more than all the rest

    def generate_trace_id(self) -> int:
        return self.given[0] if self.given else self._random.getrandbits(128)

    def generate_span_id(self) -> int:
        given, self.given = self.given, None
        return given[1] if given else self._random.getrandbits(64)

    def is_trace_id_random(self) -> bool:
        return True


def _span_context(trace: bytes) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int.from_bytes(trace[1:17]), int.from_bytes(trace[17:25]), True, TraceFlags(trace[25]))


def _exporter(settings: Settings) -> Any:
    if not settings.tracing.endpoint:
        return FileExporter(settings.data_dir / TRACES_FILE)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(settings.tracing.endpoint, timeout=EXPORT_WITHIN_S)


class FileExporter:
    """Appends spans to a file that all processes share, each span a line of OTLP's JSON."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises ResourceError."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ResourceError(f"the traces' file {path} cannot be written: {error.strerror}") from error
        self._full = False

    def export(self, spans: Sequence[Any]) -> Any:
        """Write the spans at once: lines of other processes come before or after, never between."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        if not self._full and os.fstat(self._file).st_size > MAX_FILE_BYTES:
            self._full = True
            log.warning("%s has reached %d MB: no more spans are written", TRACES_FILE, MAX_FILE_BYTES >> 20)
        if not self._full:
            os.write(self._file, "".join(json.dumps(_otlp(span)) + "\n" for span in spans).encode())
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Do nothing: what was exported is written."""
        return True

    def shutdown(self) -> None:
        """Close the file."""
        os.close(self._file)


def _otlp(span: Any) -> dict[str, Any]:
    """Return a span as OTLP's TracesData in its JSON form, as collectors write and Jaeger's page reads it."""
    ids = span.get_span_context()
    body: dict[str, Any] = {
        "traceId": f"{ids.trace_id:032x}", "spanId": f"{ids.span_id:016x}",
        "parentSpanId": f"{span.parent.span_id:016x}" if span.parent else "", "name": span.name, "kind": 1,
        "startTimeUnixNano": str(span.start_time), "endTimeUnixNano": str(span.end_time),
        "attributes": _key_values(span.attributes.items()), "status": {},
        "links": [
            {"traceId": f"{link.context.trace_id:032x}", "spanId": f"{link.context.span_id:016x}",
             "attributes": _key_values(link.attributes.items())}
            for link in span.links
        ],
    }  # fmt: skip
    if not span.status.is_ok:
        body["status"] = {"code": 2, "message": span.status.description or ""}
    scoped = {"scope": {"name": "derma"}, "spans": [body]}
    return {"resourceSpans": [
        {"resource": {"attributes": _key_values(span.resource.attributes.items())}, "scopeSpans": [scoped]}
    ]}  # fmt: skip


def _key_values(pairs: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Return attributes as OTLP writes them; its JSON has 64-bit integers as text."""
    return [{"key": key, "value": _value(value)} for key, value in pairs]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}
