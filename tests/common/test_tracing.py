"""Trace contexts and spans: who begins them, who continues them, and where they go."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import crops, frame
from support.traces import need_opentelemetry, read_spans

from derma_common import tracing
from derma_common.errors import ConfigError, ResourceError, StaleHandle
from derma_common.messages import TRACE_BYTES, Detections, Torn
from derma_common.settings import RunSettings, Settings, TracingSettings
from derma_common.stage import StageHost, Stop
from derma_common.telemetry import Metrics
from derma_common.topology import FRAMES, RESULTS
from derma_common.tracing import Head, Tracer, is_sampled

ON = TracingSettings(enabled=True, sample_ratio=1.0)
NUMBERS = st.integers(0, 1 << 61)


def context(seq=0, attempt=0, run="run", camera="cam0", settings=ON):
    return Head(run, camera, settings).context(seq, attempt)


@given(NUMBERS, NUMBERS)
def test_a_context_is_w3cs_traceparent_in_26_bytes(seq, attempt):
    made = context(seq, attempt)
    assert len(made) == TRACE_BYTES
    assert made[0] == 0
    assert made[-1] == 1
    assert any(made[1:17])
    assert any(made[17:25])


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_frame_keeps_its_trace_over_its_attempts_and_each_has_its_own_span(seq, one, other):
    first, second = context(seq, one), context(seq, other)
    assert first[:17] == second[:17]
    assert (first == second) == (one == other)


def test_frames_of_other_numbers_cameras_and_runs_have_other_traces():
    made = [context(), context(1), context(camera="cam1"), context(run="other")]
    assert len({c[1:17] for c in made}) == 4
    assert len({c[17:25] for c in made}) == 4


@pytest.mark.parametrize("ratio", [0.0, 0.03, 0.5, 1.0])
def test_the_share_of_sampled_frames_is_the_ratio(ratio):
    head = Head("run", "cam0", replace(ON, sample_ratio=ratio))
    n = sum(is_sampled(head.context(seq, 0)) for seq in range(10_000))
    assert abs(n - 10_000 * ratio) <= 150 * (0 < ratio < 1)


def test_no_frame_is_sampled_while_tracing_is_off():
    assert not is_sampled(context(settings=TracingSettings(enabled=False, sample_ratio=1.0)))
    assert not is_sampled(b"")


MODULES = (
    "derma_capture.__main__, derma_detector.__main__, derma_classifier.__main__, derma_sink.__main__, derma_cli.up"
)


def test_services_do_not_import_opentelemetry_while_tracing_is_off():
    code = f"import sys, {MODULES}; print([m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ConfigError, match=r"needs the extra: pip install 'derma\[trace\]'"):
        Tracer(replace(Settings(), tracing=ON), "run", "detector.0")


@pytest.fixture
def settings(tmp_path):
    return replace(Settings(), run=RunSettings(data_dir=str(tmp_path)), tracing=ON)


@pytest.fixture
def tracer(settings):
    need_opentelemetry()
    tracer = Tracer(settings, "run", "detector.0")
    yield tracer
    tracer.close()


def test_the_root_is_capture_from_the_picture_to_its_sending(tracer, tmp_path):
    head = Head("run", "cam0", ON, tracer)
    made = frame(7, captured_ns=5000, capture_service_ns=3000, capture_wait_ns=2_000_000, sent_ns=6000)
    made = replace(made, trace=head.context(7, 0))
    head.captured(made)
    tracer.close()
    (span,) = read_spans(tmp_path)
    assert (span.name, span.parent_id) == ("capture", "")
    assert (span.trace_id, span.span_id) == (made.trace[1:17].hex(), made.trace[17:25].hex())
    assert span.duration_ns == 3000
    assert span.attributes == {"derma.camera": "cam0", "derma.seq": 7, "derma.attempt": 0, "derma.wait_ms": 2.0}
    assert span.resource["service.instance.id"] == "detector.0"


def test_work_is_handed_on_with_its_own_span_as_the_parent_of_what_follows(tracer, tmp_path):
    made = frame(7, trace=context(7))
    work, span = tracer.begin(crops(made, 2, first=1), 1000, 5000)
    span.end(9000)
    tracer.close()
    (written,) = read_spans(tmp_path)
    assert work.frame.trace[:17] == made.trace[:17]
    assert work.frame.trace[17:25].hex() == written.span_id
    assert is_sampled(work.frame.trace)
    assert replace(work, frame=made) == crops(made, 2, first=1)
    assert written.parent_id == made.trace[17:25].hex()
    assert (written.attributes["derma.crops"], written.attributes["derma.first"]) == (2, 1)
    assert written.duration_ns == 4000


def test_times_are_wall_time(tracer, tmp_path):
    now_ns = time.monotonic_ns()
    tracer.start("x", context(), now_ns, {}).end(now_ns + 5)
    tracer.close()
    (span,) = read_spans(tmp_path)
    assert abs(span.started_ns - time.time_ns()) < 60e9


def test_a_frame_that_is_not_sampled_is_not_even_copied(tracer):
    for made in (frame(7), frame(7, trace=context(settings=TracingSettings()))):
        work, span = tracer.begin(made, 0, 0)
        assert work is made
        assert span is None


class Stale:
    """A detector-like stage without the pixels."""

    wait_s = 0.0
    finished = False

    def handle(self, message):
        raise StaleHandle("gone")

    def tick(self, now_ns):
        return ()

    def leave(self):
        self.finished = True


def test_the_host_records_a_stages_work_and_says_when_it_failed(tracer, tmp_path, hub, other_hub, heartbeat, until):
    to_sink = hub.push(RESULTS)
    host = StageHost(
        Stale(), hub, {hub.pull(FRAMES, "detector.0"): 1}, {Detections: [to_sink], Torn: [to_sink]}, heartbeat,
        Metrics("detector.0"), Stop(), tracer=tracer,
    )  # fmt: skip
    other_hub.push(FRAMES, "detector.0").send(frame(7, trace=context(7), sent_ns=time.monotonic_ns()))
    until(lambda: heartbeat.handled, host.step)
    tracer.close()
    (span,) = read_spans(tmp_path)
    assert (span.name, span.error) == ("detector", "the pixels were gone")
    assert span.attributes["derma.wait_ms"] >= 0


def test_links_point_to_other_spans_and_say_why(tracer, tmp_path):
    span = tracer.start("sink", context(7), 0, {})
    span.link(context(8), "same commit")
    span.end(1)
    tracer.close()
    (written,) = read_spans(tmp_path)
    assert written.links == [(context(8)[17:25].hex(), "same commit")]


def test_a_file_that_is_full_is_not_written_on(tracer, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tracing, "MAX_FILE_BYTES", 0)
    for _ in range(3):
        tracer.start("x", context(), 0, {}).end(1)
        tracer._provider.force_flush()
    assert len(read_spans(tmp_path)) == 1
    assert sum("no more spans are written" in r.message for r in caplog.records) == 1


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    need_opentelemetry()
    with pytest.raises(ResourceError, match=r"traces\.jsonl cannot be written"):
        Tracer(replace(Settings(), run=RunSettings(data_dir=str(tmp_path / "none")), tracing=ON), "run", "sink.0")


def test_with_an_endpoint_spans_go_there_as_otlp(settings, tmp_path):
    need_opentelemetry()
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        tracer = Tracer(replace(settings, tracing=replace(ON, endpoint=endpoint)), "run", "sink.0")
        tracer.start("sink", context(7), 0, {"derma.seq": 7}).end(1)
        tracer.close()
        server.shutdown()
    ((path, request),) = received
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert (path, span.name, span.trace_id) == ("/v1/traces", "sink", context(7)[1:17])
    assert span.parent_span_id == context(7)[17:25]
    assert not (tmp_path / tracing.TRACES_FILE).exists()


def test_a_collector_that_is_not_there_costs_a_process_little_time(settings):
    need_opentelemetry()
    tracer = Tracer(replace(settings, tracing=replace(ON, endpoint="http://127.0.0.1:9/v1/traces")), "run", "sink.0")
    tracer.start("sink", context(7), 0, {}).end(1)
    started = time.monotonic()
    tracer.close()
    assert time.monotonic() - started < settings.supervisor.stop_timeout_s


def test_a_line_of_the_file_is_otlps_json(tracer, tmp_path):
    tracer.start("x", context(7), 0, {"a": "b"}).end(1)
    tracer.close()
    line = json.loads((tmp_path / tracing.TRACES_FILE).read_text())
    span = line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert len(span["traceId"]) == 32
    assert len(span["spanId"]) == 16
    assert int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) == 1
    assert span["attributes"] == [{"key": "a", "value": {"stringValue": "b"}}]
