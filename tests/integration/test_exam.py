"""A recording goes through the real processes and comes out whole."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.place import Place
from support.runs import derma, query, up

SMALL = "synthetic://?frames=40&seed=3&width=320&height=240"


def test_every_frame_of_a_recording_is_delivered_once_and_nothing_stays_in_shared_memory(place: Place) -> None:
    with up(SMALL, *place.models, **place.dirs) as run:
        summary = run.finish()
    assert (summary["captured"], summary["delivered"], summary["dropped"], summary["in_flight"]) == (40, 40, {}, 0)
    assert run.stored() == [("cam0", seq, "delivered", "") for seq in range(40)]
    assert summary["findings"] == 80 and summary["restarts"] == 0
    assert summary["shm_bytes_left"] == 0 and run.shm_files() == []


def test_the_summary_says_where_the_time_went(place: Place) -> None:
    with up(SMALL, *place.models, **place.dirs) as run:
        latency = run.finish()["latency_ms"]
    for stage in ("capture", "detector", "classifier", "sink"):
        for part in ("wait", "service"):
            assert set(latency[stage][part]) == {"p50", "p90", "p99"}
    assert latency["detector"]["service"]["p50"] >= 15 and latency["classifier"]["service"]["p50"] >= 8
    assert latency["end_to_end"]["p50"] >= 23


def test_several_cameras_run_side_by_side_each_with_its_own_count(place: Place) -> None:
    sources = [f"left={SMALL}", "right=synthetic://?frames=25&seed=4&width=200&height=160"]
    with up(*sources, *place.models, "--set", "detector.workers=2", **place.dirs) as run:
        summary = run.finish()
    assert summary["captured"] == summary["delivered"] == 65
    assert query(place.data_dir, "SELECT camera, count(*) FROM frames GROUP BY camera") == [("left", 40), ("right", 25)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures with spaces"
    pictures.mkdir()
    for i, (height, width) in enumerate([(240, 320), (480, 640), (200, 260)]):
        cv2.imwrite(str(pictures / f"shot {i}.png"), np.full((height, width, 3), 90 + i, dtype=np.uint8))
    return pictures


def test_a_folder_of_pictures_of_different_sizes_is_examined_in_order(place: Place, folder: Path) -> None:
    with up(str(folder), *place.models, **place.dirs) as run:
        summary = run.finish()
    assert summary["delivered"] == 3
    rows = query(place.data_dir, "SELECT origin, width, height FROM frames ORDER BY seq")
    assert rows == [("shot 0.png", 320, 240), ("shot 1.png", 640, 480), ("shot 2.png", 260, 200)]


def test_one_bad_file_among_pictures_is_counted_and_the_run_goes_on(place: Place, folder: Path) -> None:
    (folder / "shot 1.png").write_text("this is no picture")
    with up(str(folder), *place.models, **place.dirs) as run:
        summary = run.finish()
    assert summary["delivered"] == 2 and summary["dropped"] == {"unreadable": 1}
    assert query(place.data_dir, "SELECT origin FROM frames WHERE outcome = 'dropped'") == [("shot 1.png",)]


def test_findings_are_printed_one_json_line_each_and_drawn_on_the_pictures(place: Place, folder: Path) -> None:
    with up(str(folder), *place.models, **place.dirs) as run:
        run.finish()
    lines = [json.loads(line) for line in run.derma("findings", "--json").stdout.splitlines()]
    assert len(lines) == 6
    first = lines[0]
    assert first["file"] == "shot 0.png" and first["seq"] == 0 and len(first["box"]) == 4
    assert set(first["probabilities"]) == {"benign", "melanoma", "unknown"}
    assert abs(sum(first["probabilities"].values()) - 1) < 1e-4
    assert first["models"]["detector"].startswith("detector@")
    pictures = place.data_dir / "drawn"
    assert run.derma("findings", "--pictures", str(pictures)).returncode == 0
    drawn = cv2.imread(str(pictures / "cam0" / "shot 1.jpg"))
    assert drawn is not None and drawn.shape == (480, 640, 3) and int(drawn.max()) > 150


def test_an_annotated_video_has_every_frame_of_the_recording(place: Place, tmp_path: Path) -> None:
    video = tmp_path / "in.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for i in range(12):
        writer.write(np.full((240, 320, 3), 80 + i, dtype=np.uint8))
    writer.release()
    with up(str(video), *place.models, **place.dirs) as run:
        assert run.finish()["delivered"] == 12
    assert run.derma("findings", "--pictures", str(tmp_path / "out")).returncode == 0
    capture = cv2.VideoCapture(str(tmp_path / "out" / "cam0.mp4"))
    n = 0
    while capture.grab():
        n += 1
    capture.release()
    assert n == 12


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nowhere.mp4"], 3, "no file or folder nowhere.mp4"),
        (["ftp://host/x"], 3, "scheme 'ftp' is not allowed"),
        (["synthetic://?frame=3"], 3, "unknown parameter 'frame'"),
        ([SMALL, "--detector", "no-such-model"], 4, "there is no model 'no-such-model'"),
        ([SMALL, "--set", "detector.thread=2"], 2, "did you mean 'threads'"),
        ([SMALL, "--classifiers", "999"], 2, "at most 64"),
        ([SMALL, "--set", "detector.runner=onnx-cuda"], 5, "the runner onnx-cuda cannot run here"),
        ([], 2, "nothing to examine"),
    ],
)
def test_a_wrong_command_gives_one_clear_line_and_a_named_status(
    place: Place, arguments: list[str], status: int, words: str
) -> None:
    done = derma("up", *arguments, **place.dirs)
    assert done.returncode == status and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("derma: ")
    assert list(place.shm_dir.rglob("*")) == []


def test_a_file_that_is_no_video_ends_the_run_with_its_own_line(place: Place, tmp_path: Path) -> None:
    liar = tmp_path / "liar.mp4"
    liar.write_text("no video at all")
    done = derma("up", str(liar), *place.models, **place.dirs)
    assert done.returncode != 0 and "is not a video that FFmpeg can open" in done.stderr.splitlines()[-1]
    assert list(place.shm_dir.rglob("ring-*")) == []


def test_a_detached_run_is_seen_by_ps_followed_by_logs_and_ended_by_down(place: Place) -> None:
    started = derma("up", "-d", "synthetic://?frames=0&fps=15&width=320&height=240", *place.models, **place.dirs)
    assert started.returncode == 0, started.stderr
    services = json.loads(derma("ps", "--json", **place.dirs).stdout)
    assert {s["instance"] for s in services} == {"sink.0", "detector.0", "classifier.0", "capture.cam0"}
    assert all(s["state"] == "ready" for s in services)
    assert "ready" in derma("logs", "detector", **place.dirs).stdout
    again = derma("up", "-d", SMALL, *place.models, **place.dirs)
    assert again.returncode == 5 and "a run is already up here" in again.stderr
    assert derma("down", **place.dirs).returncode == 0
    assert derma("ps", **place.dirs).returncode == 5
    assert derma("down", **place.dirs).returncode == 0, "to end what is not up is no error"
    assert [p for p in place.shm_dir.rglob("*") if p.is_file()] == []


def test_a_detached_run_that_cannot_start_says_why(place: Place) -> None:
    done = derma("up", "-d", "synthetic://?frames=5", "--set", "run.shm_dir=/proc", *place.models, **place.dirs)
    assert done.returncode == 5 and "cannot make the run directory" in done.stderr
