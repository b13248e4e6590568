"""The whole pipeline on the GPU: what goes in comes out once, what is there is found, and kills lose nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.runs import derma, query, up, wait_for

from derma_common.shipped import shipped

SAMPLE = shipped("samples") / "drawn-exam.mp4"
KILLS = 6


@pytest.fixture
def dirs(tmp_path: Path) -> Iterator[dict[str, Path]]:
    shm = Path(tempfile.mkdtemp(prefix="derma-test-", dir="/dev/shm"))
    yield {"data_dir": tmp_path / "data", "shm_dir": shm}
    shutil.rmtree(shm)


def on_gpu(runner: str) -> list[str]:
    """Return the flags that put both networks on GPU 0."""
    wishes = [f"{name}.{key}" for name in ("detector", "classifier") for key in (f"runner={runner}", "gpu=0")]
    return [part for wish in wishes for part in ("--set", wish)]


def test_the_sample_goes_through_the_gpu_whole(gpu_runner: str, dirs: dict[str, Path]) -> None:
    done = derma("up", str(SAMPLE), "--json", *on_gpu(gpu_runner), **dirs)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["captured"] == summary["delivered"] > 0
    assert (summary["dropped"], summary["in_flight"], summary["shm_bytes_left"]) == ({}, 0, 0)
    truth = derma("findings", "--truth", str(SAMPLE.with_suffix(".json")), "--json", **dirs)
    assert truth.returncode == 0, truth.stderr
    assert json.loads(truth.stdout.splitlines()[-1])["recall"] > 0.9


def test_kills_with_the_gpu_in_use_lose_nothing(gpu_runner: str, dirs: dict[str, Path]) -> None:
    rng = random.Random(7)
    killed: list[str] = []
    with up("synthetic://?frames=2000&width=640&height=480", *on_gpu(gpu_runner), **dirs) as run:
        run.wait_ready("detector.0", "classifier.0", "capture.cam0", "sink.0")
        while len(killed) < KILLS:
            before = rows(dirs["data_dir"])
            wait_for(lambda before=before: rows(dirs["data_dir"]) > before + 20, "frames between two kills", 60)
            victim = rng.choice(["detector.0", "classifier.0"])
            service = run.services()[victim]
            if service["state"] == "ready":
                os.kill(service["pid"], signal.SIGKILL)
                killed.append(victim)
        assert run.process.poll() is None, "the recording must still play at the last kill"
        summary = run.finish()
    assert set(killed) == {"detector.0", "classifier.0"}
    assert (summary["captured"], summary["delivered"], summary["in_flight"]) == (2000, 2000, 0)
    assert query(dirs["data_dir"], "SELECT count(*), count(DISTINCT seq) FROM frames") == [(2000, 2000)]
    assert run.shm_files() == []


def rows(data_dir: Path) -> int:
    return int(query(data_dir, "SELECT count(*) FROM frames")[0][0])
