"""Bad input and bad luck that show only while a run goes on: the line, the exit status, what the database holds.

What is found before any process starts is in tests/cli/test_bad_input.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.hostile import SUFFIXES, damaged_pictures
from support.place import Place
from support.runs import derma, query, up, wait_for

from derma_common.shipped import shipped

SMALL = "synthetic://?frames=20&width=320&height=240"
Mount = Callable[[str, int], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """`mount(name, kB)` gives a file system of that size; skips where one may not make any."""
    places: list[Path] = []

    def make(name: str, size_kb: int) -> Path:
        path = tmp_path / name
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(path)], capture_output=True
        )
        if done.returncode:
            pytest.skip("needs the right to mount a small tmpfs")
        places.append(path)
        return path

    yield make
    for path in places:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with four good pictures, one of a single pixel, and four files that are none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        cv2.imwrite(str(folder / f"{i} schön 皮膚.png"), np.full((120, 160, 3), 90 + i, np.uint8))
    cv2.imwrite(str(folder / "pixel.png"), np.zeros((1, 1, 3), np.uint8))
    whole = (folder / "0 schön 皮膚.png").read_bytes()
    (folder / "1 cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "2 text.jpg").write_text("this is no picture")
    (folder / "3 zero.png").touch()
    (folder / os.fsdecode(b"4 \xff.png")).write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    return folder


def one_line(stderr: str) -> str:
    """Return the line that tells what went wrong, and see that nobody's traceback comes with it."""
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("derma: ") and "Traceback" not in stderr
    return last


def test_bad_pictures_among_good_ones_are_counted_by_name_and_the_run_goes_on(place: Place, pictures: Path) -> None:
    with up(str(pictures), *place.models, **place.dirs) as run:
        summary = run.finish()
    assert (summary["delivered"], summary["dropped"]) == (5, {"unreadable": 4})
    lost = query(place.data_dir, "SELECT origin, reason FROM frames WHERE outcome = 'dropped' ORDER BY origin")
    assert [reason for _, reason in lost] == ["unreadable"] * 4
    assert [origin[:2] for origin, _ in lost] == ["1 ", "2 ", "3 ", "4 "]
    pixel = query(place.data_dir, "SELECT width, height, outcome FROM frames WHERE origin = 'pixel.png'")
    assert pixel == [(1, 1, "delivered")]


@pytest.mark.slow
def test_a_thousand_damaged_pictures_are_each_accounted_for_and_kill_nobody(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for suffix in SUFFIXES:
        for i, data in enumerate(damaged_pictures(suffix, 200)):
            (folder / f"{i}{suffix}").write_bytes(data)
    with up(str(folder), *place.models, **place.dirs) as run:
        summary = run.finish()
    assert summary["captured"] == 1000 == summary["delivered"] + summary["dropped"]["unreadable"]
    assert summary["restarts"] == 0 and summary["dropped"]["unreadable"] > 100
    assert summary["shm_bytes_left"] == 0


def test_a_video_that_is_cut_off_is_examined_as_far_as_it_goes_and_that_is_said(place: Place, tmp_path: Path) -> None:
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for i in range(40):
        writer.write(np.random.default_rng(i).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    writer.release()
    (tmp_path / "cut.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with up(str(tmp_path / "cut.avi"), *place.models, **place.dirs) as run:
        summary = run.finish()
    assert 10 < summary["delivered"] == summary["captured"] < 30
    assert f"the video announces 40 pictures and gives {summary['captured']}: it may be cut off" in run.said()


def test_pictures_whose_disk_is_unplugged_are_counted_and_the_run_ends(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    for i in range(800):  # 12 s for the detector: they are not all read before the disk goes
        cv2.imwrite(str(folder / f"{i}.png"), np.full((64, 64, 3), i % 256, np.uint8))
    with up(str(folder), *place.models, **place.dirs) as run:
        run.wait_ready("sink.0")
        wait_for(run.stored, "the first picture")
        shutil.rmtree(folder)
        summary = run.finish()
    assert summary["captured"] == 800 == summary["delivered"] + summary["dropped"]["unreadable"]
    assert summary["delivered"] > 0 and summary["dropped"]["unreadable"] > 0


def test_a_camera_that_is_not_there_ends_the_run(place: Place) -> None:
    done = derma("up", "77", *place.models, **place.dirs)
    assert done.returncode == 3
    assert "camera 77 does not open; check that it is plugged in (/dev/video77 is not there" in one_line(done.stderr)
    assert query(place.data_dir, "SELECT count(*) FROM frames") == [(0,)]


def test_another_network_under_a_card_ends_the_run(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(shipped("models") / "yolov4-tiny-mole", other)
    shutil.copy(shipped("models") / "efficientnet-b0-skin" / "model.onnx", other / "model.onnx")
    card = json.loads((other / "card.json").read_text())
    card["sha256"] = hashlib.sha256((other / "model.onnx").read_bytes()).hexdigest()
    (other / "card.json").write_text(json.dumps(card))
    done = derma("up", SMALL, "--detector", str(other), "--classifier", str(place.classifier), **place.dirs)
    assert done.returncode == 4 and "its card says ['image'] and ['boxes', 'scores']" in one_line(done.stderr)


def test_a_second_run_of_a_data_folder_is_refused_and_the_first_goes_on(place: Place) -> None:
    with up("synthetic://?frames=0&fps=10&width=320&height=240", *place.models, **place.dirs) as run:
        run.wait_ready("sink.0")
        done = derma("up", SMALL, *place.models, **place.dirs)
        assert done.returncode == 5 and "end it with `derma down`" in one_line(done.stderr)
        assert run.derma("down").returncode == 0
        assert run.finish()["in_flight"] == 0


def test_a_database_that_cannot_be_made_ends_the_run(place: Place) -> None:
    done = derma("up", SMALL, *place.models, "--set", "sink.database=/proc/nowhere/derma.db", **place.dirs)
    assert done.returncode == 5 and "the database /proc/nowhere/derma.db cannot be written" in one_line(done.stderr)


def test_a_shared_memory_that_is_too_small_ends_the_run(place: Place, mount: Mount) -> None:
    small = mount("shm", 1024)
    wide = "synthetic://?frames=20&width=1280&height=720"
    done = derma("up", wide, *place.models, data_dir=place.data_dir, shm_dir=small)
    assert done.returncode == 5 and "memory" in one_line(done.stderr)
    assert query(place.data_dir, "SELECT count(*) FROM frames") == [(0,)]
    assert [p for p in small.rglob("*") if p.is_file()] == []


def test_a_disk_that_fills_ends_the_run_and_what_was_stored_stays(place: Place, mount: Mount) -> None:
    disk = mount("disk", 8 * 1024)
    endless = "synthetic://?frames=0&fps=25&width=320&height=240"
    arguments = {"data_dir": disk / "data", "shm_dir": place.shm_dir}
    with up(endless, *place.models, **arguments) as run:
        run.wait_ready("sink.0")
        count = "SELECT count(*) FROM findings"
        wait_for(lambda: query(disk / "data", count)[0][0] >= 20, "findings")
        free = shutil.disk_usage(disk).free
        with (disk / "other-data").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free)
        stored = query(disk / "data", count)[0][0]
        run.process.wait(timeout=120)
    (disk / "other-data").unlink()
    assert run.process.returncode == 5
    assert query(disk / "data", count)[0][0] >= stored >= 20
    assert query(disk / "data", "PRAGMA integrity_check") == [("ok",)]
    with up(SMALL, *place.models, **arguments) as again:
        assert again.finish()["delivered"] == 20, "with room on its disk it works again"
