"""The remote stage between a ring and a real Redis, with the real worker process at the other end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.builders import crops, frame
from support.redis_server import MISSING, RedisServer, available

from derma_common.cloud.entries import CropJob, JobResult, image_of, pack, unpack
from derma_common.cloud.streams import CLASSIFIERS, Line, jobs_key, results_key
from derma_common.errors import StaleHandle
from derma_common.inference.card import read_card
from derma_common.inference.classification import Classifier
from derma_common.messages import Capacity, Classifications, Farewell, Torn
from derma_common.preprocess import cut
from derma_common.rings import RingReader, RingWriter
from derma_common.telemetry import Metrics, RemoteMetrics
from derma_remote.courier import Courier
from derma_remote.stage import RemoteStage

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)
OWNER = "detector.0/0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def served(line: Line, classifier_dir: Path) -> None:
    """As if a worker of the model had been there."""
    line.join(jobs_key(read_card(classifier_dir).sha256), CLASSIFIERS)


@pytest.fixture
def line(server: RedisServer) -> Iterator[Line]:
    line = Line(server.access())
    yield line
    line.close()


@pytest.fixture
def ring(run_dir: Path) -> Iterator[RingWriter]:
    writer = RingWriter(run_dir, "cam0", 0, slots=2, slot_bytes=48 * 64 * 3)
    yield writer
    writer.close()


@pytest.fixture
def stage_of(server: RedisServer, run_dir: Path, classifier_dir: Path) -> Iterator[Callable[..., RemoteStage]]:
    made: list = []

    def make(within_s: float = 5.0, room: int = 8) -> RemoteStage:
        card = read_card(classifier_dir)
        courier, rings = Courier(lambda: Line(server.access()), "room1", card.sha256), RingReader(run_dir)
        made.extend([courier, rings])
        metrics = RemoteMetrics(Metrics("remote.0"), lambda: ())
        return RemoteStage(courier, rings, card, "room1", "run1.0", room, within_s, ["detector.0"], metrics)

    yield make
    for part in made:
        part.close()


def captured(ring: RingWriter, seq: int = 3):
    image = np.random.default_rng(seq).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return frame(seq, attempt=2, handle=ring.write(image)), image


def collect(stage: RemoteStage, until: Callable[[list], bool]) -> list:
    """Tick until what came out is enough."""
    out: list = []
    deadline = time.monotonic() + 30
    while not until(out):
        assert time.monotonic() < deadline, out
        out += stage.tick(time.monotonic_ns())
        time.sleep(0.002)
    return out


def online(stage: RemoteStage) -> None:
    collect(stage, lambda out: any(isinstance(m, Capacity) and m.room for m in out))


def of_kind(messages: list, kind: type) -> list:
    return [m for m in messages if isinstance(m, kind)]


@pytest.mark.usefixtures("served")  # the crops wait for a worker that is slow to start
def test_the_real_worker_says_the_same_as_a_local_one(stage_of, server, ring, classifier_dir):
    env = os.environ | server.settings("classifier")
    command = [sys.executable, "-m", "derma_classifier.remote", "--model", str(classifier_dir)]
    stage = stage_of(within_s=30.0)
    worker = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        online(stage)
        of, image = captured(ring)
        work = crops(of, 3, first=4, owner=OWNER)
        assert list(stage.handle(work)) == []
        results = of_kind(collect(stage, lambda out: len(of_kind(out, Classifications)) == 3), Classifications)
    finally:
        worker.terminate()
        worker.wait(20)
    with_model = Classifier.open(classifier_dir)
    wanted = with_model.classify([cut(image, square, with_model.card.input.width) for square in work.squares])
    assert {r.first: r.probabilities[0] for r in results} == {
        4 + i: tuple(float(p) for p in row) for i, row in enumerate(wanted)
    }
    assert all((r.camera, r.seq, r.attempt, r.model) == ("cam0", 3, 2, with_model.card.id) for r in results)
    assert all(r.worker.startswith("remote:") and r.queued_ns <= r.started_ns <= r.done_ns for r in results)
    assert stage.outstanding == 0
    (capacity,) = of_kind(collect(stage, lambda out: len(of_kind(out, Capacity)) == 1), Capacity)
    assert capacity.finished == {OWNER: 3} and capacity.room == 8  # grown with the answers


def test_a_crop_without_an_answer_is_taken_back_and_a_late_answer_changes_nothing(
    stage_of, ring, line, classifier_dir, served
):
    stage = stage_of(within_s=0.2)
    online(stage)
    of, _ = captured(ring)
    stage.handle(crops(of, 1, owner=OWNER))
    out = collect(stage, lambda out: of_kind(out, Torn))
    assert of_kind(out, Torn) == [Torn("cam0", 3, 2, "remote")]
    assert of_kind(out, Capacity)[-1].room == 0  # a pause
    assert of_kind(out, Capacity)[-1].finished == {OWNER: 1}
    card = read_card(classifier_dir)
    (delivery,) = line.read({jobs_key(card.sha256): "0-0"}, 9, 2.0)
    job = unpack(delivery.data, CropJob)
    late = JobResult("room1", job.job, (0.2, 0.7, 0.1), card.classes, card.id, "w", 1, 2)
    line.send([(results_key("room1"), "*", pack(late))])
    time.sleep(0.3)
    assert of_kind(list(stage.tick(time.monotonic_ns())), Classifications) == []


def test_an_answer_of_another_model_or_an_error_is_no_answer(stage_of, ring, line, classifier_dir, served):
    card = read_card(classifier_dir)
    for change in ({"model": "other@1"}, {"error": "deadline", "classes": (), "probabilities": ()}):
        stage = stage_of()
        online(stage)
        start = line.last_id(jobs_key(card.sha256))
        of, _ = captured(ring)
        stage.handle(crops(of, 1, owner=OWNER))
        (delivery,) = line.read({jobs_key(card.sha256): start}, 9, 2.0)
        job = unpack(delivery.data, CropJob)
        good = JobResult("room1", job.job, (0.2, 0.7, 0.1), card.classes, card.id, "w", 1, 2)
        line.send(
            [(results_key("room1"), "*", b"nonsense"), (results_key("room1"), "*", pack(replace(good, **change)))]
        )
        assert of_kind(collect(stage, lambda out: of_kind(out, Torn)), Torn) == [Torn("cam0", 3, 2, "remote")]
        ring.release(of.handle)


def test_a_job_is_exactly_what_a_local_classifier_would_be_given(stage_of, ring, line, classifier_dir, served):
    stage = stage_of()
    online(stage)
    of, image = captured(ring)
    work = crops(of, 2, owner=OWNER)
    stage.handle(work)
    card = read_card(classifier_dir)
    deliveries = line.read({jobs_key(card.sha256): "0-0"}, 9, 2.0)
    while len(deliveries) < 2:
        deliveries = line.read({jobs_key(card.sha256): "0-0"}, 9, 2.0)
    jobs = [unpack(d.data, CropJob) for d in deliveries]
    for job, square in zip(jobs, work.squares, strict=True):
        assert np.array_equal(image_of(job.picture), cut(image, square, card.input.width))
    assert len({job.job for job in jobs}) == 2 and {job.within_ns for job in jobs} == {5_000_000_000}


def test_while_the_line_is_down_nothing_is_asked_for(stage_of, server, ring):
    server.stop()
    stage = stage_of()
    out = collect(stage, lambda out: len(of_kind(out, Capacity)) >= 3)
    assert {m.room for m in of_kind(out, Capacity)} == {0}
    of, _ = captured(ring)
    stage.handle(crops(of, 2, owner=OWNER))  # a detector that has not heard yet
    out = collect(stage, lambda out: len(of_kind(out, Torn)) == 2)
    server.start()
    online(stage)


def test_pixels_that_are_gone_count_as_finished(stage_of, ring):
    stage = stage_of()
    of, _ = captured(ring)
    ring.release(of.handle)
    ring.write(np.zeros((48, 64, 3), np.uint8)), ring.write(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(StaleHandle):
        stage.handle(crops(of, 2, owner=OWNER))
    (capacity,) = of_kind(collect(stage, lambda out: of_kind(out, Capacity)), Capacity)
    assert capacity.finished == {OWNER: 2}


def test_it_leaves_when_every_detector_has_confirmed(stage_of, ring):
    stage = stage_of()
    assert not stage.finished
    stage.leave()
    assert not stage.finished
    stage.handle(Farewell(OWNER, 0))
    assert stage.finished


def test_a_model_that_nobody_serves_gets_no_stream(stage_of, ring, line, classifier_dir):
    stage = stage_of()
    online(stage)
    of, _ = captured(ring)
    stage.handle(crops(of, 1, owner=OWNER))
    assert of_kind(collect(stage, lambda out: of_kind(out, Torn)), Torn) == [Torn("cam0", 3, 2, "remote")]
    assert line.last_id(jobs_key(read_card(classifier_dir).sha256)) == "0-0"
