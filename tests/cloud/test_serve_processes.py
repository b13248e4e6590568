"""`derma serve` with real workers and a real Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.crops import job, lesion, results
from support.redis_server import RedisServer
from support.runs import wait_for

from derma_common.cloud.streams import CLASSIFIERS, Line, jobs_key, opinions_key, pictures_key
from derma_common.inference.card import read_card
from derma_common.inference.fake import fake_classifier

SERVE = "from derma_cli.serve import serve; serve()"


@contextmanager
def serving(server: RedisServer, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `derma serve` and make sure that it is gone afterwards; its workers go with it."""
    with log.open("ab") as output:
        command = [sys.executable, "-c", SERVE, *arguments]
        child = subprocess.Popen(command, env=os.environ | server.settings(""), stdout=output, stderr=output)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_workers_follow_the_backlog_die_are_replaced_and_leave_with_the_command(
    server: RedisServer, line: Line, tmp_path: Path
) -> None:
    model = fake_classifier(tmp_path / "model", service_ms=150)
    key, log = jobs_key(read_card(model).sha256), tmp_path / "serve.log"
    chosen = ("--model", str(model), "--max", "3", "--count", "1", "--idle", "1")
    with serving(server, log, "classifier", *chosen) as child:
        wait_for(lambda: "started, metrics on port" in log.read_text(), "the first worker")
        assert len(children(child.pid)) == 1
        names = [f"j{i}" for i in range(120)]
        line.send([(key, "*", job(name)) for name in names])
        wait_for(lambda: len(children(child.pid)) == 3, "three workers")
        os.kill(victim := children(child.pid)[0], signal.SIGKILL)
        wait_for(lambda: len(found := children(child.pid)) == 3 and victim not in found, "its successor")
        wait_for(lambda: {r.job for r in results(line)} == set(names), "all results")
        wait_for(lambda: line.backlog(key, CLASSIFIERS).pending == 0, "all acknowledged")
        pids = children(child.pid)
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "3 workers instead of 1" in log.read_text()


@pytest.mark.slow
def test_workers_go_when_their_command_is_killed(server: RedisServer, tmp_path: Path) -> None:
    model, log = fake_classifier(tmp_path / "model"), tmp_path / "serve.log"
    with serving(server, log, "classifier", "--model", str(model)) as child:
        wait_for(lambda: "started" in log.read_text(), "the worker")
        (pid,) = children(child.pid)
        child.kill()
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the worker to go")


@pytest.mark.slow
def test_second_opinions_come_from_a_served_ensemble(server: RedisServer, line: Line, tmp_path: Path) -> None:
    models = [fake_classifier(tmp_path / name) for name in "ab"]
    line.register("room1")
    line.send([(pictures_key("room1", 1), "1-1", lesion(1, priority=1))])
    chosen = [part for model in models for part in ("--model", str(model))]
    with serving(server, tmp_path / "serve.log", "opinion", *chosen) as child:
        wait_for(lambda: line.read({opinions_key("room1"): "0-0"}, 1, 0), "the opinion")
        child.terminate()
        assert child.wait(30) == 0


def test_a_model_that_is_not_there_ends_the_command_with_one_line(server: RedisServer, tmp_path: Path) -> None:
    with serving(server, log := tmp_path / "serve.log", "opinion", "--model", "nobody") as child:
        assert child.wait(30) == 4
    assert log.read_text().strip().splitlines()[-1].startswith("derma: there is no model 'nobody'")
