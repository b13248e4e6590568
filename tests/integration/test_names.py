"""Folders and files are called after people: their names are where they must be, and nowhere else.

They belong in the database (source and file of a picture), in the run's plan, which only its owner can read, and on the
terminal of whoever typed them. Not into logs, metrics, traces, process lists, names of our own files, or what leaves.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.place import Place
from support.runs import Run, derma, query, up

CANARY = "canary"
LOUD = ("--set", "logging.level=debug", "--set", "logging.format=json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A person's pictures, some of them none, and a video that is cut off."""
    folder = tmp_path / "jane canary" / "exam [canary]"
    folder.mkdir(parents=True)
    for i in range(500):  # enough for the run to be looked at
        cv2.imwrite(str(folder / f"canary {i}.png"), np.full((120, 160, 3), i % 256, np.uint8))
    (folder / "canary bad.jpg").write_text("no picture")
    video(folder.parent / "canary.avi")
    return folder


def video(path: Path) -> None:
    """Write a video that is cut off."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for i in range(40):
        writer.write(np.random.default_rng(i).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def metrics_of(run: Run) -> str:
    """Return what every process of the run serves."""
    groups = json.loads((run.data_dir / "prometheus-targets.json").read_text())
    addresses = [f"http://{target}/metrics" for group in groups for target in group["targets"]]
    return "\n".join(urllib.request.urlopen(address, timeout=10).read().decode() for address in addresses)


def written(data_dir: Path) -> dict[str, bytes]:
    """Return all files below a data folder but the database and the terminal of these tests: name → content."""
    files = [f for f in data_dir.rglob("*") if f.is_file()]
    assert [f.name for f in files if CANARY in str(f.relative_to(data_dir))] == []
    return {f.name: f.read_bytes() for f in files if not f.name.startswith(("derma.db", "up."))}


def test_names_of_people_are_in_the_database_and_nowhere_else(place: Place, folder: Path) -> None:
    sources = (f"a={folder}", f"b={folder.parent / 'canary.avi'}")
    data_dir = folder.parent / "canary data"
    with up(*sources, *LOUD, *place.models, data_dir=data_dir, shm_dir=place.shm_dir) as run:
        services = run.wait_ready("sink.0", "capture.a", "classifier.0", "detector.0")
        for row in (row for row in services.values() if row["pid"]):
            titles = [Path(f"/proc/{row['pid']}/{name}").read_bytes() for name in ("cmdline", "comm")]
            assert CANARY.encode() not in b"".join(titles)
        assert CANARY not in metrics_of(run) + json.dumps(services)
        run_dir = next(place.shm_dir.rglob("plan.json")).parent
        for file in run_dir.iterdir():
            assert CANARY not in file.name
            if file.is_file() and not file.name.startswith(("plan", "ring")):
                assert CANARY.encode() not in file.read_bytes(), file.name
        summary = run.finish()
    assert summary["dropped"] == {"unreadable": 1} and summary["unreadable"] == ["canary bad.jpg"]
    assert "the video announces 40 pictures" in run.said()
    for name, content in written(data_dir).items():
        assert CANARY.encode() not in content, name
    logs = (data_dir / "logs" / "capture.a.log").read_text()
    assert "cannot be read; which file that is, the database says" in logs, "it is told, without the name"
    assert derma("logs", data_dir=data_dir, shm_dir=place.shm_dir).stdout.count(CANARY) == 0
    tables = [name for (name,) in query(data_dir, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    holding = {
        (table, column)
        for table in tables
        for _, column, *_ in query(data_dir, f"PRAGMA table_info({table})")
        if query(data_dir, f"SELECT count(*) FROM {table} WHERE CAST({column} AS TEXT) LIKE '%{CANARY}%'")[0][0]
    }
    assert holding == {("cameras", "source"), ("frames", "origin")}


@pytest.mark.parametrize("form", ["json", "human"])
def test_a_source_that_ends_a_run_is_named_at_the_terminal_only(place: Place, tmp_path: Path, form: str) -> None:
    path = tmp_path / "canary exam.avi"
    video(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"movi")
    data[at + 4 :] = bytes(len(data) - at - 4)  # it opens, and holds no picture
    path.write_bytes(data)
    done = derma("up", str(path), *place.models, "--set", f"logging.format={form}", **place.dirs)
    assert done.returncode == 3 and f"{path} holds no picture that can be decoded" in done.stderr.splitlines()[-1]
    for name, content in written(place.data_dir).items():
        assert CANARY.encode() not in content, name
    assert b"holds no picture that can be decoded" in (place.data_dir / "logs" / "capture.cam0.log").read_bytes()


def test_a_database_that_cannot_be_used_is_named_at_the_terminal_only(place: Place, tmp_path: Path) -> None:
    database = tmp_path / "canary" / "derma.db"
    database.parent.mkdir()
    database.write_text("no database, but something else entirely")
    source = "synthetic://?frames=3&width=320&height=240"
    done = derma("up", source, *place.models, "--set", f"sink.database={database}", **place.dirs)
    assert done.returncode == 5 and str(database) in done.stderr.splitlines()[-1]
    for name, content in written(place.data_dir).items():
        assert CANARY.encode() not in content, name
