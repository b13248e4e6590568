"""A run whose processes have their cores, priorities and shares of a GPU, under a stand-in for the daemon of MPS."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support.mps_daemon import RECORD, install
from support.place import Place
from support.runs import derma, up, wait_for


def test_every_service_runs_where_the_settings_put_it_and_mps_outlives_its_clients(
    place: Place, tmp_path: Path, monkeypatch
) -> None:
    install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "none"))
    monkeypatch.setenv(RECORD, str(tmp_path / "record"))
    core = max(os.sched_getaffinity(0))
    wishes = ("gpu.mps=true", "detector.gpu_percent=60", "detector.priority=5", f"sink.cores=[{core}]")
    flags = [part for wish in wishes for part in ("--set", wish)]
    with up("synthetic://?frames=300&width=320&height=240", *place.models, *flags, **place.dirs) as run:
        before = run.wait_ready("detector.0", "sink.0", "capture.cam0", "classifier.0")
        pids = {name: row["pid"] for name, row in before.items()}
        assert os.getpriority(os.PRIO_PROCESS, pids["detector.0"]) == 5
        assert {os.getpriority(os.PRIO_PROCESS, int(t.name)) for t in threads(pids["detector.0"])} == {5}
        assert all(os.sched_getaffinity(int(t.name)) == {core} for t in threads(pids["sink.0"]))
        environment = Path(f"/proc/{pids['detector.0']}/environ").read_bytes().split(b"\0")
        assert {b"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=60", b"CUDA_DEVICE_ORDER=PCI_BUS_ID"} <= set(environment)
        os.kill(pids["detector.0"], signal.SIGSTOP)  # hangs, perhaps in a call into the driver
        wait_for(lambda: run.services()["detector.0"]["pid"] != pids["detector.0"], "a new detector", 15)
        summary = run.finish()
    assert (summary["delivered"], summary["dropped"]) == (300, {})
    record = (tmp_path / "record").read_text().splitlines()
    assert record == ["start PCI_BUS_ID", f"terminate {pids['detector.0']} alive True", "quit with 0 clients"]


def test_a_share_without_mps_ends_at_once_with_the_setting(place: Place) -> None:
    done = derma("up", "synthetic://?frames=3", *place.models, "--set", "detector.gpu_percent=60", **place.dirs)
    assert done.returncode == 2 and "need gpu.mps = true" in done.stderr


def threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())
