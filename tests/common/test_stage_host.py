"""The loop around a stage: receive, beat, call, send, leave."""

from __future__ import annotations

import os
import threading

import pytest
from support.builders import detections, frame
from support.metrics import total

from derma_common.errors import ResourceError, StaleHandle
from derma_common.heartbeat import read_beat
from derma_common.messages import Ask, Command, Detections, Frame, Reply, Roster, Torn
from derma_common.stage import Orphaned, StageHost, Stop
from derma_common.telemetry import Metrics
from derma_common.topology import (
    ACKS,
    CONTROL,
    FRAMES,
    RESULTS,
    ROLES,
    ROSTER,
    TOPICS,
    Service,
    detector_of,
    service_of,
)
from derma_common.transport import Hub, answer, request

DETECTOR = "detector.0"


class Finds:
    """A detector-like stage; `during` sees the heartbeat while a frame is in hand."""

    wait_s = 0.0

    def __init__(self, during=lambda: None, stale=False):
        self.during, self.stale = during, stale
        self.finished = False

    def handle(self, message):
        self.during()
        if self.stale:
            raise StaleHandle("the slot holds generation 8, not 2")
        return [detections(message, 0)]

    def tick(self, now_ns):
        return ()

    def leave(self):
        self.finished = True


@pytest.fixture
def wired(hub, other_hub, heartbeat):
    """`wired(stage)` gives the stage's host, a way to send it frames, and what the sink received."""

    def wire(stage, **options):
        frames, to_sink = hub.pull(FRAMES, DETECTOR), hub.push(RESULTS)
        metrics = Metrics(DETECTOR)
        routes = {Detections: [to_sink], Torn: [to_sink]}
        stop = options.pop("stop", Stop())
        host = StageHost(stage, hub, {frames: 1}, routes, heartbeat, metrics, stop, **options)
        return host, other_hub.push(FRAMES, DETECTOR), other_hub.pull(RESULTS), metrics

    return wire


def test_what_a_stage_returns_is_sent_where_its_type_goes(wired, until):
    host, source, sink, metrics = wired(Finds())
    source.send(frame(7))
    heard = []
    until(lambda: heard, lambda: (host.step(), heard.extend(sink.receive())))
    assert heard == [detections(frame(7), 0)]
    assert total(metrics, "derma_stage_service_seconds_count") == 1
    assert total(metrics, "derma_stage_wait_seconds_count") == 1


def test_the_frame_in_hand_is_in_the_heartbeat_while_it_is_worked_on(wired, run_dir, until):
    seen = []
    host, source, _, _ = wired(Finds(during=lambda: seen.append(read_beat(run_dir, "test.0").doing)))
    source.send(frame(7))
    until(lambda: seen, host.step)
    assert seen == [("cam0", 7)]
    beat = read_beat(run_dir, "test.0")
    assert (beat.doing, beat.handled) == (None, 1)


def test_pixels_that_are_gone_are_reported_counted_and_the_stage_goes_on(wired, until):
    stage = Finds(stale=True)
    host, source, sink, metrics = wired(stage)
    source.send(frame(7, attempt=3))
    heard = []
    until(lambda: heard, lambda: (host.step(), heard.extend(sink.receive())))
    assert heard == [Torn("cam0", 7, 3, "Finds")]
    assert total(metrics, "derma_stale_handles_total") == 1
    stage.stale = False
    source.send(frame(8))
    until(lambda: len(heard) == 2, lambda: (host.step(), heard.extend(sink.receive())))
    assert isinstance(heard[1], Detections)


def test_every_turn_beats(wired, run_dir):
    host, _, _, _ = wired(Finds())
    host.step()
    first = read_beat(run_dir, "test.0").beat_ns
    host.step()
    assert read_beat(run_dir, "test.0").beat_ns > first


def test_a_stage_that_is_asked_to_leave_leaves(wired, run_dir):
    stop = Stop()
    host, _, _, _ = wired(Finds(), stop=stop)
    assert host.step()
    stop.ask()
    host.run()
    assert read_beat(run_dir, "test.0").state == "leaving"


def test_a_stage_whose_supervisor_is_gone_leaves_at_once(wired):
    alive, end = os.pipe()
    host, _, _, _ = wired(Finds(), alive_fd=alive)
    assert host.step()
    os.close(end)
    with pytest.raises(Orphaned):
        host.run()
    os.close(alive)


def test_a_socket_path_that_is_too_long_is_one_clear_line(tmp_path):
    hub = Hub(tmp_path / ("x" * 120))
    with pytest.raises(ResourceError, match=r"too long for a UNIX socket.*; set run.shm_dir"):
        hub.pull(RESULTS)
    hub.close()


def test_sending_never_blocks_even_when_nobody_is_there(hub):
    link = hub.push(RESULTS)
    sent = [link.send(Ask("cam0")) for _ in range(5000)]
    assert sent[0]
    assert not sent[-1]


def test_what_is_broadcast_comes_to_all_that_listen(hub, other_hub, until):
    owner, listeners = hub.publish(ROSTER), [other_hub.subscribe(ROSTER) for _ in range(2)]
    heard = [[], []]

    def turn():
        owner.send(Roster((), {}, 1))
        for listener, notes in zip(listeners, heard, strict=True):
            notes.extend(listener.receive())

    until(lambda: all(heard), turn)


def test_a_question_to_nobody_has_no_answer(run_dir):
    assert request(run_dir, CONTROL, Command("ps"), timeout_s=0.01) is None


def test_a_question_is_answered_by_the_owner(hub, run_dir, until):
    control = hub.serve_requests(CONTROL)
    replies = []
    asker = threading.Thread(target=lambda: replies.append(request(run_dir, CONTROL, Command("scale", "x=1"))))
    asker.start()
    until(lambda: replies, lambda: (hub.wait(0.01), answer(control, lambda c: Reply(text=c.argument))))
    asker.join()
    assert replies == [Reply(text="x=1")]


def test_every_topic_has_one_owner_and_its_readers_and_writers_are_declared():
    assert len({t.name for t in TOPICS}) == len(TOPICS)
    for service, role in ROLES.items():
        for topic in (*role.reads, *role.writes):
            assert topic in TOPICS
        assert service_of(f"{service}.0") is service
    assert ACKS in ROLES[Service.CAPTURE].reads
    assert Frame in FRAMES.carries


@pytest.mark.parametrize("detectors", [1, 2, 3])
def test_a_camera_belongs_to_one_detector_and_all_detectors_have_cameras(detectors):
    assert {detector_of(i, detectors) for i in range(detectors)} == {f"detector.{i}" for i in range(detectors)}
    assert detector_of(detectors + 1, detectors) == detector_of(1, detectors)
