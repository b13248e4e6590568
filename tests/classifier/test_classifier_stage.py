"""The classifier stage over a real ring with a fake network, and its leave over real sockets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import CLASSES, crops, frame
from support.strategies import of_message

from derma_classifier.stage import ClassifierStage
from derma_common.errors import StaleHandle
from derma_common.inference.classification import Classifier
from derma_common.messages import Capacity, Classifications, Crops, Farewell, Torn
from derma_common.rings import RingReader, RingWriter
from derma_common.stage import StageHost, Stop
from derma_common.telemetry import Metrics
from derma_common.topology import RESULTS, WORK
from derma_common.wire import decode, encode
from derma_common.workclaim import STATE_EVERY_NS

DETECTORS = ("detector.0", "detector.1")


@pytest.fixture
def ring(run_dir):
    writer = RingWriter(run_dir, "cam0", 0, slots=2, slot_bytes=48 * 64 * 3)
    yield writer
    writer.close()


@pytest.fixture
def captured(ring):
    return frame(3, attempt=2, handle=ring.write(np.zeros((48, 64, 3), dtype=np.uint8)))


@pytest.fixture
def stage_for(run_dir, classifier_dir):
    readers = []

    def make(detectors=DETECTORS, room=8):
        readers.append(RingReader(run_dir))
        return ClassifierStage(Classifier.open(classifier_dir), readers[-1], "classifier.0", room, detectors)

    yield make
    for reader in readers:
        reader.close()


def test_crops_become_calibrated_probabilities_row_by_row(stage_for, captured):
    work = crops(captured, 3, first=4)
    result, _ = stage_for().handle(work)
    assert isinstance(result, Classifications)
    assert (result.camera, result.seq, result.attempt, result.first) == ("cam0", 3, 2, 4)
    assert len(result.probabilities) == 3
    assert all(sum(row) == pytest.approx(1) for row in result.probabilities)
    assert result.classes == CLASSES
    assert (result.worker, result.queued_ns) == ("classifier.0", work.queued_ns)
    assert decode(encode(result)) == result


def test_finished_crops_are_counted_for_the_incarnation_that_sent_them(stage_for, captured):
    stage = stage_for()
    assert stage.handle(crops(captured, 3, owner="detector.0/0"))[1].finished == {"detector.0/0": 3}
    assert stage.handle(crops(captured, 2, owner="detector.1/4"))[1].finished == {"detector.0/0": 3, "detector.1/4": 2}


def test_a_detectors_successor_starts_at_none(stage_for, captured):
    stage = stage_for()
    stage.handle(crops(captured, 3, owner="detector.0/0"))
    assert stage.handle(crops(captured, 1, owner="detector.0/1"))[1].finished == {"detector.0/1": 1}


def test_crops_whose_pixels_are_gone_are_finished_too(stage_for, captured):
    stage = stage_for()
    stale = replace(captured, handle=replace(captured.handle, generation=999))
    with pytest.raises(StaleHandle):
        stage.handle(crops(stale, 2, owner="detector.0/0"))
    (stated,) = stage.tick(STATE_EVERY_NS)
    assert stated.finished["detector.0/0"] == 2


def test_the_capacity_is_stated_again_and_again(stage_for):
    stage = stage_for()
    (first,) = stage.tick(STATE_EVERY_NS)
    assert list(stage.tick(2 * STATE_EVERY_NS - 1)) == []
    assert list(stage.tick(2 * STATE_EVERY_NS)) == [first]


def test_a_leaving_worker_asks_for_no_more(stage_for):
    stage = stage_for()
    stage.leave()
    (stated,) = stage.tick(STATE_EVERY_NS)
    assert stated.room == 0


def test_a_leaving_worker_waits_until_every_detector_confirmed_what_it_sent(stage_for, captured):
    stage = stage_for()
    stage.leave()
    stage.handle(Farewell("detector.1/0", 0))
    assert not stage.finished
    stage.handle(Farewell("detector.0/0", 2))
    assert not stage.finished
    stage.handle(crops(captured, 2, owner="detector.0/0"))
    assert stage.finished


def test_a_farewell_before_leaving_changes_nothing(stage_for):
    stage = stage_for(["detector.0"])
    stage.handle(Farewell("detector.0/0", 0))
    assert not stage.finished


@pytest.fixture
def running(hub, other_hub, heartbeat, stage_for):
    """A worker process's host, the detector's work server and the sink's results."""
    server = hub.serve_work(WORK, "detector.0", 0)
    results = hub.pull(RESULTS)
    work, to_sink = other_hub.ask_work(WORK, "detector.0"), other_hub.push(RESULTS)
    stop = Stop()
    routes = {Classifications: [to_sink], Capacity: [work], Torn: [to_sink]}
    stage = stage_for(["detector.0"], room=4)
    host = StageHost(stage, other_hub, {work: 1}, routes, heartbeat, Metrics("classifier.0"), stop)
    return host, server, results, stop


def test_a_worker_that_leaves_finishes_what_it_was_sent_and_loses_nothing(running, captured, until):
    host, server, results, stop = running
    heard, going = [], [True]

    def turn():
        going[0] = going[0] and host.step()
        list(server.receive())
        heard.extend(results.receive())

    server.send(crops(captured, 10))
    until(lambda: heard, turn)
    stop.ask()
    until(lambda: not going[0], turn)
    until(lambda: sum(len(m.probabilities) for m in heard) == 10 - server.pool.pending, turn)
    assert server.pool.pending > 0
    server.send(crops(captured, 1))
    assert list(server.receive()) == []
    assert sum(len(m.probabilities) for m in heard) < 10


def test_a_torn_crop_is_reported_and_the_worker_goes_on(running, captured, until):
    host, server, results, _ = running
    heard = []
    stale = replace(captured, handle=replace(captured.handle, slot=1))
    server.send(crops(stale, 2))
    server.send(crops(captured, 1))
    until(lambda: len(heard) == 2, lambda: (host.step(), list(server.receive()), heard.extend(results.receive())))
    assert heard[0] == Torn("cam0", 3, 2, "ClassifierStage")
    assert isinstance(heard[1], Classifications)


@given(work=of_message(Crops), keep=st.booleans())
def test_whatever_crops_the_wire_lets_through_are_classified_or_stale(stage_for, captured, work, keep):
    handle = captured.handle if keep else work.frame.handle
    stage = stage_for()
    try:
        work = replace(work, frame=replace(work.frame, handle=handle))
    except ValueError:
        return  # squares of another picture: the wire refuses them
    try:
        result, _ = stage.handle(work)
    except StaleHandle:
        assert handle is not captured.handle
        return
    assert len(result.probabilities) == len(work.squares)


def test_another_message_is_no_work(stage_for):
    assert list(stage_for().handle(Capacity("x", 1, {}))) == []


def test_work_without_crops_has_no_probabilities(stage_for, captured):
    result, _ = stage_for().handle(Crops(captured, 0, (), 0))
    assert result.probabilities == ()
