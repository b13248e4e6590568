"""A camera's user and password reach the camera, and nothing that anybody else could read."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import pytest
from support.mjpeg_camera import MjpegCamera
from support.place import Place
from support.runs import Run, derma, query, up, wait_for
from support.traces import need_opentelemetry

USER, PASSWORD = "canary-user", "canary-p@ss:w/rd %41"
CANARIES = ("canary", "p%40ss", "p@ss", "w/rd")


def told(text: str) -> list[str]:
    """Return what a text gives away."""
    return [canary for canary in CANARIES if canary in text]


def process_titles(run: Run) -> str:
    """Return the command lines of the run's processes, as `ps` shows them to everybody."""
    pids = [run.process.pid, *(row["pid"] for row in run.services().values())]
    return "\n".join(Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/comm").read_text() for pid in pids)


def metrics(run: Run) -> str:
    """Return what every process of the run serves."""
    groups = json.loads((run.data_dir / "prometheus-targets.json").read_text())
    addresses = [f"http://{target}/metrics" for group in groups for target in group["targets"]]
    return "\n".join(urllib.request.urlopen(address, timeout=10).read().decode() for address in addresses)


@pytest.fixture(params=["environment", "password file"])
def camera(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the arguments of `derma up` for a camera that wants a password, its user and password given in this way."""
    served = request.getfixturevalue("locked").url
    if request.param == "environment":
        monkeypatch.setenv("DERMA_CAMERA_ROOM_USER", USER)
        monkeypatch.setenv("DERMA_CAMERA_ROOM_PASSWORD", PASSWORD)
        return [f"room={served}"]
    secret, settings = tmp_path / "camera.password", tmp_path / "room.toml"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    settings.write_text(
        f"[[camera]]\nname = 'room'\nsource = '{served}'\nuser = '{USER}'\npassword_file = '{secret}'\n"
    )
    return ["--config", str(settings)]


@pytest.fixture
def locked():
    """A camera that sends its pictures to who knows the password."""
    with MjpegCamera(f"{USER}:{PASSWORD}") as server:
        yield server


def test_a_password_reaches_the_camera_and_nothing_that_others_read(
    place: Place, locked: MjpegCamera, camera: list[str]
) -> None:
    need_opentelemetry()  # spans too are read by others
    settings = ("capture.read_timeout_s=1", "tracing.enabled=true", "tracing.sample_ratio=1", "logging.level=debug")
    arguments = [*camera, *(word for setting in settings for word in ("--set", setting))]
    with up(*arguments, *place.models, **place.dirs) as run:
        run.wait_ready("sink.0", "capture.room")
        frames = "SELECT count(*) FROM frames WHERE outcome = 'delivered'"
        wait_for(lambda: query(place.data_dir, frames)[0][0] >= 5, "frames from the locked camera")
        assert told(process_titles(run)) == []
        assert told(metrics(run)) == []
        assert told(json.dumps(run.services())) == []
        plan = next(place.shm_dir.rglob("plan.json"))
        assert plan.stat().st_mode & 0o077 == 0 == plan.parent.stat().st_mode & 0o077, "only its owner reads the plan"
        for file in [f for f in plan.parent.iterdir() if f.is_file() and f != plan]:
            assert told(file.read_bytes().decode(errors="replace")) == [], file.name
        locked.freeze()
        wait_for(lambda: "is lost" in run.said(), "the camera to be missed")
        run.process.send_signal(signal.SIGINT)
        out, _ = run.process.communicate(timeout=60)
    findings = run.derma("findings", "--json").stdout + run.derma("logs").stdout + run.derma("top", "--once").stdout
    assert findings and told(out + run.said() + findings) == []
    for file in [f for f in place.data_dir.rglob("*") if f.is_file()]:
        assert told(str(file)) == [] and told(file.read_bytes().decode(errors="replace")) == [], file
    assert list(place.shm_dir.rglob("plan.json")) == []


def test_a_wrong_password_is_one_line_that_does_not_repeat_it(
    place: Place, locked: MjpegCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERMA_CAMERA_ROOM_USER", USER)
    monkeypatch.setenv("DERMA_CAMERA_ROOM_PASSWORD", "canary-wrong")
    done = derma("up", f"room={locked.url}", *place.models, **place.dirs)
    assert done.returncode == 3 and "check address, user and password" in done.stderr.splitlines()[-1]
    assert told(done.stdout + done.stderr) == []
    for file in [f for f in place.data_dir.rglob("*") if f.is_file()]:
        assert told(file.read_bytes().decode(errors="replace")) == [], file
