"""Remote classifiers against a real Redis: the answers, the deadlines, and processes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis
from support.crops import crop, job, results
from support.metrics import values
from support.redis_server import RedisServer
from support.runs import wait_for

from derma_classifier.remote import TOO_LATE, ClassifyCrops
from derma_common.cloud.entries import CropJob, Picture, pack
from derma_common.cloud.streams import CLASSIFIERS, DEAD, Line, jobs_key
from derma_common.inference.card import read_card
from derma_common.inference.classification import Classifier
from derma_common.inference.fake import fake_classifier
from derma_common.shipped import model_dir
from derma_common.workers.clock import RedisClock
from derma_common.workers.consumer import Consumer, Terms
from derma_common.workers.metrics import WorkerMetrics

MS = 1_000_000


def worker_of(line: Line, model: Path, metrics: WorkerMetrics | None = None) -> Consumer[tuple[CropJob, np.ndarray]]:
    """Return a worker in this process."""
    classifier, metrics = Classifier.open(model), metrics or WorkerMetrics("job")
    work = ClassifyCrops(classifier, "w1", RedisClock(line.now_ms), metrics)
    return Consumer(line, "w1", work, Terms(CLASSIFIERS, 8, 60.0), metrics)


def send(line: Line, model: Path, *jobs: bytes) -> None:
    key = jobs_key(read_card(model).sha256)
    assert line.send([(key, "*", data) for data in jobs]) == [""] * len(jobs)


def test_a_remote_workers_probabilities_are_those_of_a_local_one_bit_for_bit(line: Line) -> None:
    model = model_dir("efficientnet-b0-skin")
    card = read_card(model)
    images = [crop(i, card.input.width) for i in range(3)]
    send(line, model, *(job(f"j{i}", image) for i, image in enumerate(images)))
    worker_of(line, model).step(0)
    local = Classifier.open(model).classify(images)
    for i, result in enumerate(results(line)):
        assert (result.job, result.model, result.classes, result.error) == (f"j{i}", card.id, card.classes, "")
        np.testing.assert_array_equal(np.array(result.probabilities, dtype=np.float32), local[i])
        assert result.wait_ns >= 0 and result.service_ns > 0


def test_a_job_past_its_deadline_is_answered_without_the_network(line: Line, classifier_dir: Path) -> None:
    metrics = WorkerMetrics("job")
    worker = worker_of(line, classifier_dir, metrics)
    worker.step(0)
    send(line, classifier_dir, job("late", within_ns=5 * MS), job("in time"))
    then = line.now_ms()
    wait_for(lambda: line.now_ms() > then + 10, "Redis' clock to go on")
    worker.step(0)
    late, in_time = results(line)
    assert (late.job, late.error, late.probabilities, late.service_ns) == ("late", TOO_LATE, (), 0)
    assert late.wait_ns > 5 * MS
    assert (in_time.job, in_time.error, len(in_time.probabilities)) == ("in time", "", 3)
    counted = values(metrics, "derma_entries_total")
    assert (counted["job", "expired"], counted["job", "done"]) == (1, 1)


def test_hostile_jobs_are_quarantined_and_the_others_answered(
    line: Line, bare: redis.Redis, classifier_dir: Path
) -> None:
    huge = pack(CropJob("room1", "x", "m", 1, Picture("png", 64, 64, b"\x89PNG" + bytes(100))))
    other_size = job("y", crop(px=32))
    lying = pack(CropJob("room1", "z", "m", 1, Picture("raw", 64, 64, bytes(64 * 64 * 3)))).replace(b"room1", b"ROOM1")
    send(line, classifier_dir, b"", b"\xff" * 100, huge, other_size, lying, job("good"))
    worker_of(line, classifier_dir).step(0)
    assert [r.job for r in results(line)] == ["good"]
    reasons = [fields[b"reason"].decode() for _, fields in bare.xrange(DEAD)]
    assert len(reasons) == 5
    assert any("32x32 px for a network of 64x64" in reason for reason in reasons)


# -- real processes -----------------------------------------------------------------------------------------------


@contextmanager
def process(
    server: RedisServer, model: Path, log: Path, role: str = "", idle_s: float = 0.3
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker process and make sure that it is gone afterwards."""
    command = [
        sys.executable, "-m", "derma_classifier.remote", "--model", str(model), "--idle", str(idle_s), "--count", "4",
    ]  # fmt: skip
    with log.open("ab") as output:
        child = subprocess.Popen(command, env=os.environ | server.settings(role), stdout=output, stderr=output)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_nothing(
    server: RedisServer, line: Line, bare: redis.Redis, tmp_path: Path
) -> None:
    model = fake_classifier(tmp_path / "model", service_ms=100)
    key = jobs_key(read_card(model).sha256)
    names = {f"j{i}" for i in range(24)}
    send(line, model, *(job(name) for name in sorted(names)))
    with process(server, model, tmp_path / "a.log") as first:
        wait_for(lambda: len(results(line)) >= 4, "the first results")
        first.kill()
        first.wait()
    assert line.backlog(key, CLASSIFIERS).waiting > 0
    with process(server, model, tmp_path / "b.log") as second:
        wait_for(lambda: {r.job for r in results(line)} == names, "all results")
        wait_for(lambda: line.backlog(key, CLASSIFIERS).pending == 0, "all acknowledged")
        second.send_signal(signal.SIGTERM)
        assert second.wait(10) == 0
    found = results(line)
    by_job = {r.job: (r.probabilities, r.error) for r in found}
    assert all(by_job[r.job] == (r.probabilities, r.error) for r in found), "twice is the same once"
    names_left = [c["name"].decode() for c in bare.xinfo_consumers(key, CLASSIFIERS)]
    assert len(names_left) == 1, "the killed one's name stays, the other one's is gone"


@pytest.mark.slow
def test_a_crop_that_kills_its_worker_takes_nobody_with_it_and_ends_as_a_dead_letter(
    server: RedisServer, line: Line, bare: redis.Redis, tmp_path: Path
) -> None:
    model = fake_classifier(tmp_path / "model", abort_above=0.9)
    deadly = np.full((64, 64, 3), 255, dtype=np.uint8)
    harmless = {f"j{i}" for i in range(6)}
    dark = np.zeros((64, 64, 3), dtype=np.uint8)
    send(line, model, job("deadly", deadly), *(job(name, dark) for name in sorted(harmless)))
    deaths = 0
    for _ in range(12):
        with process(server, model, tmp_path / "w.log", idle_s=0.05) as child:
            wait_for(lambda: child.poll() is not None or bare.xlen(DEAD), "its death or a dead letter")
            deaths += child.poll() is not None
        if deaths == 3:
            assert {r.job for r in results(line)} == harmless, "the others do not wait until it is buried"
        if bare.xlen(DEAD):
            break
    assert deaths == 5
    ((_, letter),) = bare.xrange(DEAD)
    assert b"delivered 6 times" in letter[b"reason"]


def test_a_worker_that_hangs_ends_itself_and_says_where(server: RedisServer, line: Line, tmp_path: Path) -> None:
    model = fake_classifier(tmp_path / "model", hang_above=0.9)
    send(line, model, job("hangs", np.full((64, 64, 3), 255, dtype=np.uint8)))
    with process(server, model, tmp_path / "w.log", idle_s=0.05) as child:
        assert child.wait(20) == 1
    assert "Timeout" in (said := (tmp_path / "w.log").read_text()) and "fake.py" in said


def test_a_worker_behind_tls_needs_its_own_user(guarded: RedisServer, tmp_path: Path) -> None:
    model = fake_classifier(tmp_path / "model")
    site = Line(guarded.access("site-room1"))
    send(site, model, job("j0"))
    with process(guarded, model, tmp_path / "good.log", role="classifier"):
        wait_for(lambda: [r.job for r in results(site)] == ["j0"], "the result")
    with process(guarded, model, tmp_path / "bad.log", role="ingest") as refused:
        assert refused.wait(20) == 5
    site.close()
    last = (tmp_path / "bad.log").read_text().splitlines()[-1]
    assert last.startswith("derma: Redis refuses us: ") and "xgroup" in last


def test_a_worker_without_an_address_says_what_to_set(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "derma_classifier.remote"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "set cloud.redis" in done.stderr
