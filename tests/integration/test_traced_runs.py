"""Traced runs of the real processes: every sampled frame has its chain of spans, and none is made while it is off."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.place import Place
from support.runs import query, up
from support.traces import Written, need_opentelemetry, read_spans

from derma_common.inference.fake import fake_classifier
from derma_common.tracing import TRACES_FILE

SOURCE = "synthetic://?frames=30&width=320&height=240"
ON = ("--set", "tracing.enabled=true", "--set")
SKEW_NS = 2_000_000  # processes read the wall clock each for itself, at their start


def by_frame(spans: list[Written]) -> dict[int, list[Written]]:
    """Return the spans of each frame."""
    frames: dict[int, list[Written]] = defaultdict(list)
    for span in spans:
        frames[span.attributes["derma.seq"]].append(span)
    return frames


def only(spans: list[Written], name: str) -> Written:
    """Return the one span of this name."""
    (span,) = [s for s in spans if s.name == name]
    return span


def test_every_frame_has_its_chain_of_spans_with_the_right_parents_and_times(place: Place) -> None:
    need_opentelemetry()
    with up(SOURCE, *ON, "tracing.sample_ratio=1.0", *place.models, "--classifiers", "2", **place.dirs) as run:
        assert run.finish()["delivered"] == 30
    frames = by_frame(read_spans(place.data_dir))
    assert sorted(frames) == list(range(30))
    assert len({spans[0].trace_id for spans in frames.values()}) == 30
    waits_ns = dict(query(place.data_dir, "SELECT seq, detector_wait_ns FROM timings"))
    for seq, spans in frames.items():
        assert len({s.trace_id for s in spans}) == 1 and len({s.span_id for s in spans}) == len(spans)
        capture, detector, sink = (only(spans, name) for name in ("capture", "detector", "sink"))
        classifiers = [s for s in spans if s.name == "classifier"]
        assert capture.parent_id == "" and detector.parent_id == capture.span_id
        assert {s.parent_id for s in (*classifiers, sink)} == {detector.span_id}
        assert sum(s.attributes["derma.crops"] for s in classifiers) == 2
        assert {i for i, why in sink.links if why == "classification"} == {s.span_id for s in classifiers}
        assert detector.duration_ns >= 15e6 and all(s.duration_ns >= 8e6 for s in classifiers)
        assert all(s.duration_ns > 0 for s in spans)
        assert detector.started_ns >= capture.ended_ns - SKEW_NS
        assert all(c.started_ns >= detector.started_ns + 15e6 - SKEW_NS for c in classifiers)
        assert sink.started_ns >= max(c.started_ns for c in classifiers) + 8e6 - SKEW_NS
        assert (sink.attributes["derma.outcome"], sink.error) == ("delivered", "")
        assert seq not in waits_ns or detector.attributes["derma.wait_ms"] <= waits_ns[seq] / 1e6
    assert {s.resource["service.name"] for spans in frames.values() for s in spans} == {
        "derma-capture", "derma-detector", "derma-classifier", "derma-sink",
    }  # fmt: skip


def test_what_is_not_sampled_leaves_no_span_anywhere(place: Place) -> None:
    need_opentelemetry()
    with up(SOURCE, *ON, "tracing.sample_ratio=0.0", *place.models, **place.dirs) as run:
        assert run.finish()["delivered"] == 30
    assert read_spans(place.data_dir) == []


def test_a_frame_that_is_sampled_is_so_in_every_stage(place: Place) -> None:
    need_opentelemetry()
    with up(SOURCE, *ON, "tracing.sample_ratio=0.5", *place.models, **place.dirs) as run:
        run.finish()
    frames = by_frame(read_spans(place.data_dir))
    assert 3 <= len(frames) <= 27
    assert all({s.name for s in spans} == {"capture", "detector", "classifier", "sink"} for spans in frames.values())


def test_a_frame_that_kills_workers_has_a_trace_that_ends_with_the_reason(place: Place, tmp_path: Path) -> None:
    need_opentelemetry()
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(6):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((320, 320, 3), 250 if i == 3 else 100, dtype=np.uint8))
    killer = fake_classifier(tmp_path / "killer", abort_above=0.9)
    models = ("--detector", str(place.detector), "--classifier", str(killer))
    with up(str(folder), *ON, "tracing.sample_ratio=1.0", *models, **place.dirs) as run:
        assert run.finish()["dropped"] == {"poison": 1}
    spans = by_frame(read_spans(place.data_dir))[3]
    sink = only(spans, "sink")
    detectors = {s.span_id: s for s in spans if s.name == "detector"}
    assert sink.error == "dropped: poison" and sink.parent_id in detectors
    assert len(detectors) >= 3 and {s.parent_id for s in detectors.values()} == {only(spans, "capture").span_id}
    assert len({s.attributes["derma.attempt"] for s in detectors.values()}) == len(detectors), "a retry is seen as one"


@pytest.mark.parametrize("on", [False, True])
def test_opentelemetry_is_imported_only_while_tracing_is_on(
    place: Place, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_opentelemetry()
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # every process lists on stderr what it imports
    with up(SOURCE, *(ON if on else ("--set",)), "tracing.sample_ratio=1.0", *place.models, **place.dirs) as run:
        assert run.finish()["delivered"] == 30
    logs = {f.stem: f.read_text() for f in (place.data_dir / "logs").glob("*.0.log")} | {"up": run.said()}
    assert all("derma_common.tracing" in text for text in logs.values()), "the lists of imports are there"
    assert {name for name, text in logs.items() if "opentelemetry" in text} == (
        {"sink.0", "detector.0", "classifier.0"} if on else set()
    )
    assert (place.data_dir / TRACES_FILE).exists() == on
