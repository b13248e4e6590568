"""Processes die, hang and crash on their input while a recording plays; the store cannot tell."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import cv2
import numpy as np
from support.place import Place
from support.runs import Run, derma, query, up, wait_for

from derma_common.inference.fake import fake_classifier, fake_detector

KILLS = 20
SEED = 20261121


def test_twenty_kills_at_random_lose_nothing_and_store_nothing_twice(place: Place) -> None:
    rng = random.Random(SEED)
    killed: list[str] = []
    source = "synthetic://?frames=1500&seed=1&width=320&height=240"
    with up(source, *place.models, "--classifiers", "2", **place.dirs) as run:
        run.wait_ready("sink.0", "capture.cam0")
        while len(killed) < KILLS:
            wait_for(lambda: _progress(run), "frames to move on between kills", 30)
            victim = rng.choice(sorted(_ready(run).items()))
            if _kill(*victim):
                killed.append(victim[0])
        assert run.process.poll() is None, "the recording must still play at the last kill"
        summary = run.finish()
    assert {name.split(".")[0] for name in killed} == {"capture", "detector", "classifier", "sink"}
    assert (summary["captured"], summary["delivered"], summary["in_flight"]) == (1500, 1500, 0)
    assert run.stored() == [("cam0", seq, "delivered", "") for seq in range(1500)]
    assert query(place.data_dir, "SELECT count(*), count(DISTINCT seq) FROM findings") == [(3000, 1500)]
    assert summary["restarts"] >= KILLS
    assert summary["shm_bytes_left"] == 0 and run.shm_files() == []


def _ready(run: Run) -> dict[str, int]:
    """Return the pids of the instances at work."""
    return {name: row["pid"] for name, row in run.services().items() if row["state"] == "ready"}


def _kill(instance: str, pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _progress(run: Run) -> bool:
    """Whether at least one more frame became durable than at the last call on this run."""
    n = query(run.data_dir, "SELECT count(*) FROM frames")[0][0]
    before, _PROGRESS[id(run)] = _PROGRESS.get(id(run), 0), n
    return n > before


_PROGRESS: dict[int, int] = {}


def test_when_the_supervisor_is_killed_no_process_stays_and_down_removes_its_memory(place: Place) -> None:
    source = "synthetic://?frames=5000&width=320&height=240"
    with up(source, *place.models, **place.dirs) as run:
        services = run.wait_ready("sink.0", "capture.cam0", "detector.0", "classifier.0")
        pids = [row["pid"] for row in services.values()]
        os.kill(pids[0], signal.SIGSTOP)  # one that cannot see the pipe close
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        wait_for(lambda: not any(_alive(pid) for pid in pids), "all services to be gone", 10)
    assert run.shm_files() != []
    assert run.derma("down").returncode == 0
    assert run.shm_files() == []


def test_the_next_up_removes_what_a_killed_run_left(place: Place) -> None:
    with up("synthetic://?frames=5000&width=320&height=240", *place.models, **place.dirs) as run:
        run.wait_ready("capture.cam0")
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
    with up("synthetic://?frames=5&width=320&height=240", *place.models, **place.dirs) as run:
        assert run.finish()["delivered"] == 5
    assert run.shm_files() == []


def _alive(pid: int) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


def test_a_worker_that_hangs_is_replaced_and_its_work_done_by_others(place: Place) -> None:
    source = "synthetic://?frames=400&width=320&height=240"
    with up(source, *place.models, "--classifiers", "2", **place.dirs) as run:
        before = run.wait_ready("classifier.0", "classifier.1", "capture.cam0", "sink.0")
        wait_for(lambda: _progress(run), "the first frames")
        os.kill(before["classifier.1"]["pid"], signal.SIGSTOP)
        replaced = wait_for(
            lambda: run.services().get("classifier.1", {}).get("pid", 0) not in (0, before["classifier.1"]["pid"]),
            "the hung worker to be replaced", 8,
        )  # fmt: skip
        assert replaced
        summary = run.finish()
    assert summary["delivered"] == 400 and summary["dropped"] == {}
    assert summary["restarts_by_instance"] == {"classifier.1": 1}
    assert "gave no sign of life for 4 s" in run.said()


def test_a_crop_that_kills_the_classifier_three_times_is_quarantined_and_the_run_goes_on(
    place: Place, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(20):
        grey = 250 if i == 7 else 100
        cv2.imwrite(str(folder / f"{i:02}.png"), np.full((320, 320, 3), grey, dtype=np.uint8))
    killer = fake_classifier(tmp_path / "killer", abort_above=0.9, service_ms=5)
    with up(str(folder), "--detector", str(place.detector), "--classifier", str(killer), **place.dirs) as run:
        summary = run.finish()
    assert summary["captured"] == 20 and summary["delivered"] == 19 and summary["dropped"] == {"poison": 1}
    assert query(place.data_dir, "SELECT origin FROM frames WHERE reason = 'poison'") == [("07.png",)]
    assert query(place.data_dir, "SELECT DISTINCT missing FROM findings WHERE seq = 7") == [("poison",)]
    assert summary["restarts"] == 3


def test_scaling_up_and_down_while_frames_flow_loses_nothing(place: Place) -> None:
    source = "synthetic://?frames=500&width=320&height=240"
    with up(source, *place.models, "--classifiers", "1", **place.dirs) as run:
        run.wait_ready("classifier.0", "capture.cam0", "sink.0")
        assert run.derma("scale", "classifier=3").stdout.strip() == "classifier=3"
        run.wait_ready("classifier.0", "classifier.1", "classifier.2")
        wait_for(lambda: run.services()["classifier.2"]["handled"] > 0, "the third worker to get work")
        assert run.derma("scale", "classifier=1").returncode == 0
        wait_for(lambda: not _ready(run).keys() & {"classifier.1", "classifier.2"}, "two workers to leave")
        assert run.process.poll() is None
        summary = run.finish()
    assert summary["delivered"] == 500 and summary["dropped"] == {}
    assert summary["restarts"] == 0, "a worker that leaves is no loss"
    attempts = query(place.data_dir, "SELECT DISTINCT attempt FROM frames")
    assert attempts == [(0,)], "nothing had to be sent again"


def test_a_second_up_is_refused_while_the_first_goes_on(place: Place) -> None:
    with up("synthetic://?frames=60&width=320&height=240", *place.models, **place.dirs) as run:
        run.wait_ready("sink.0")
        second = run.derma("up", "synthetic://?frames=5", *place.models)
        assert second.returncode == 5 and "a run is already up here" in second.stderr
        assert run.finish()["delivered"] == 60


def test_down_finishes_what_is_in_flight_and_the_counts_agree(place: Place) -> None:
    with up("synthetic://?frames=100000&width=320&height=240", *place.models, **place.dirs) as run:
        run.wait_ready("sink.0", "capture.cam0")
        wait_for(lambda: _progress(run), "the first frames")
        assert run.derma("down").returncode == 0
        summary = run.finish()
    assert 0 < summary["captured"] == summary["delivered"] and summary["in_flight"] == 0
    assert len(run.stored()) == summary["delivered"] and run.shm_files() == []


def test_a_service_that_cannot_do_any_work_ends_the_run_with_its_reason(place: Place, tmp_path: Path) -> None:
    crashing = fake_detector(tmp_path / "crashing", abort_above=-1)
    arguments = ["--detector", str(crashing), "--classifier", str(place.classifier)]
    done = derma("up", "synthetic://?frames=50&width=320&height=240", *arguments, **place.dirs)
    assert done.returncode == 6
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("derma: detector.0 died 5 times before doing any work")
    assert not [p for p in place.shm_dir.rglob("*") if p.is_file()]


def test_a_worker_that_was_scaled_away_can_come_back(place: Place) -> None:
    with up("synthetic://?frames=100000&width=320&height=240", *place.models, **place.dirs) as run:
        run.wait_ready("classifier.0", "capture.cam0", "sink.0")
        for _ in range(2):
            assert run.derma("scale", "classifier=2").returncode == 0
            run.wait_ready("classifier.0", "classifier.1")
            wait_for(lambda: run.services()["classifier.1"]["handled"] > 0, "the second worker to get work")
            assert run.derma("scale", "classifier=1").returncode == 0
            wait_for(lambda: "classifier.1" not in run.services(), "the second worker to leave")
        assert run.derma("down").returncode == 0
        summary = run.finish()
    assert summary["restarts"] == 0 and summary["captured"] == summary["delivered"]
