"""The last span of a frame: its parent, its links, its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.builders import classifications, detections, frame
from support.traces import need_opentelemetry, read_spans

from derma_common.messages import Close
from derma_common.settings import RunSettings, Settings, TracingSettings
from derma_common.telemetry import Metrics
from derma_common.tracing import Head, Tracer
from derma_sink.stage import SinkStage
from derma_sink.store import StoreWriter

ON = TracingSettings(enabled=True, sample_ratio=1.0)
OFF = TracingSettings(enabled=False)


@pytest.fixture
def sink(tmp_path, heartbeat):
    """A sink's stage, and a function that returns the spans that it wrote."""
    need_opentelemetry()
    tracer = Tracer(replace(Settings(), run=RunSettings(data_dir=str(tmp_path)), tracing=ON), "run", "sink.0")
    store = StoreWriter(tmp_path / "derma.db", "run")
    stage = SinkStage(store, ["cam0"], Metrics("sink.0").sink_only(), heartbeat, tracer)

    def spans():
        tracer.close()
        return {s.attributes["derma.seq"]: s for s in read_spans(tmp_path)}

    yield stage, spans
    tracer.close()
    store.close()


def context(seq, attempt=0, settings=ON):
    return Head("run", "cam0", settings).context(seq, attempt)


def span_id(trace):
    return trace[17:25].hex()


def turn(stage, *messages):
    for message in messages:
        list(stage.handle(message))
    list(stage.tick(0))


def whole(seq, settings=ON):
    """The messages of a frame whose two crops were done by two workers, each with a span of its own."""
    of = frame(seq, trace=context(seq, 0, settings))
    parts = [classifications(of, 1, first=i) for i in (0, 1)]
    return [detections(of, 2), *(replace(p, trace=context(seq, i + 1, settings)) for i, p in enumerate(parts))]


def test_the_detectors_span_is_the_parent_and_the_classifiers_are_links(sink):
    stage, spans = sink
    turn(stage, *whole(0))
    span = spans()[0]
    assert span.parent_id == span_id(context(0))
    assert span.links == [(span_id(context(0, i)), "classification") for i in (1, 2)]
    assert (span.attributes["derma.outcome"], span.attributes["derma.lesions"]) == ("delivered", 2)


def test_frames_of_one_commit_point_to_each_other(sink):
    stage, spans = sink
    turn(stage, *whole(0), *whole(1), *whole(2, OFF))
    written = spans()
    assert set(written) == {0, 1}
    for one, other in ((0, 1), (1, 0)):
        assert (written[other].span_id, "same commit") in written[one].links


def test_a_frame_that_is_closed_before_its_boxes_came_ends_under_its_capture(sink):
    stage, spans = sink
    turn(stage, Close("cam0", ((0, 0),), "deadline", trace=context(0)))
    span = spans()[0]
    assert (span.parent_id, span.error) == (span_id(context(0)), "dropped: deadline")


def test_frames_that_were_never_sent_have_no_span(sink):
    stage, spans = sink
    turn(stage, Close("cam0", ((0, 5),), "busy"))
    assert spans() == {}
