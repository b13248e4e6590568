"""A network camera that vanishes twenty times, in every way: it always comes back, and nothing grows."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.place import Place
from support.rtsp_camera import RtspCamera
from support.runs import query, up, wait_for

TIMES = 20
SIZES = ((320, 240), (640, 480), (160, 120))


def delivered(data_dir: Path) -> int:
    """Return the number of delivered frames."""
    return int(query(data_dir, "SELECT count(*) FROM frames WHERE outcome = 'delivered'")[0][0])


def size_of(pid: int) -> dict[str, int]:
    """Return what must not grow: resident kB, threads, open files."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {"kB": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]), "files": files}


def vanish(camera: RtspCamera, n: int, place: Place) -> None:
    """Take the camera away in one of three ways, until it is missed, and bring it back."""
    before = (place.data_dir / "logs" / "capture.room.log").read_text().count("the camera is lost")

    def is_missed() -> bool:
        return (place.data_dir / "logs" / "capture.room.log").read_text().count("the camera is lost") > before

    if n % 3 == 0:
        camera.freeze()
        wait_for(is_missed, "the frozen camera to be missed")
        camera.thaw()
    else:
        camera.kill()
        wait_for(is_missed, "the dead camera to be missed")
        camera.start(*SIZES[n % len(SIZES)])


@pytest.mark.slow
def test_a_camera_that_vanishes_twenty_times_is_always_back_and_nothing_grows(place: Place) -> None:
    impatient = ["--set", "capture.read_timeout_s=1", "--set", "capture.open_timeout_s=2"]
    with RtspCamera() as camera, up(f"room={camera.url}", *impatient, *place.models, **place.dirs) as run:
        pid = run.wait_ready("sink.0", "capture.room")["capture.room"]["pid"]
        wait_for(lambda: delivered(place.data_dir) >= 10, "the first frames")
        seen = []
        for n in range(TIMES):
            vanish(camera, n, place)
            before = delivered(place.data_dir)
            wait_for(lambda: delivered(place.data_dir) >= before + 10, f"frames after it vanished {n + 1} times")  # noqa: B023
            seen.append(size_of(pid))
        services = run.services()
        run.process.send_signal(signal.SIGINT)
        summary = run.finish()
    assert services["capture.room"]["restarts"] == 0 and summary["restarts"] == 0
    assert summary["captured"] == summary["delivered"] + sum(summary["dropped"].values()) and summary["in_flight"] == 0
    sizes = query(place.data_dir, "SELECT DISTINCT width, height FROM frames WHERE outcome = 'delivered'")
    assert set(sizes) >= set(SIZES), "a camera may come back with another picture size"
    early, late = seen[5], seen[-1]
    assert late["threads"] <= early["threads"] and late["files"] <= early["files"], (early, late)
    assert late["kB"] - early["kB"] < 30_000, (early, late)
