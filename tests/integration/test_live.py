"""A live source faster than the models: bounded age, flat memory, counted drops, and the law at every scrape."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.place import Place
from support.runs import Run, query, up, wait_for

from derma_common.inference.fake import fake_detector

FAST = "synthetic://?frames=0&fps=120&width=320&height=240"


def scrape(run: Run) -> dict[str, str]:
    """Return every process's /metrics text by instance, from the list that Prometheus is given."""
    groups = json.loads((run.data_dir / "prometheus-targets.json").read_text())
    texts = {}
    for group in groups:
        with urllib.request.urlopen(f"http://{group['targets'][0]}/metrics", timeout=10) as answer:
            texts[group["labels"]["instance"]] = answer.read().decode()
    return texts


def flow(text: str) -> dict[str, int]:
    """Return the terms of the conservation law of one scrape; drops as dropped:reason."""
    found = re.findall(r"derma_frames\{([^}]*)\} (\S+)", text)
    terms = {}
    for labels, value in found:
        named = dict(re.findall(r'(\w+)="(\w*)"', labels))
        terms[":".join(filter(None, (named["state"], named["reason"])))] = int(float(value))
    return terms


def number(text: str, name: str) -> float:
    """Return the value of the first sample of a metric."""
    found = re.search(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is not exported"
    return float(found[1])


def holds(terms: dict[str, int]) -> bool:
    """Whether captured = delivered + Σ dropped + in_flight."""
    dropped = sum(n for name, n in terms.items() if name.startswith("dropped"))
    return terms["captured"] == terms["delivered"] + dropped + terms["in_flight"]


def rss_kb(pid: int) -> int:
    """Return a process's resident memory."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]


def watch(run: Run, samples: int) -> list[dict[str, float]]:
    """Scrape again and again; return age, memory and flow of each scrape."""
    pids = {name: row["pid"] for name, row in run.services().items()}
    seen: list[dict[str, float]] = []
    while len(seen) < samples:
        before = flow(scrape(run)["capture.cam0"])["captured"]
        wait_for(lambda: flow(scrape(run)["capture.cam0"])["captured"] >= before + 50, "50 more frames")  # noqa: B023
        text = scrape(run)["capture.cam0"]
        terms = flow(text)
        assert holds(terms), terms
        rss = {f"rss:{name}": float(rss_kb(pid)) for name, pid in pids.items()}
        seen.append(
            {"age": number(text, "derma_picture_age_seconds"), **rss, **{k: float(v) for k, v in terms.items()}}
        )
    return seen


def test_a_live_source_faster_than_the_models_drops_and_counts_and_stays_young(place: Place, tmp_path: Path) -> None:
    slow = fake_detector(tmp_path / "slow", service_ms=60)
    with up(FAST, "--detector", str(slow), "--classifier", str(place.classifier), **place.dirs) as run:
        run.wait_ready("capture.cam0", "sink.0", "detector.0", "classifier.0")
        wait_for(lambda: "capture.cam0" in scrape(run) and flow(scrape(run)["capture.cam0"])["delivered"] > 5, "flow")
        seen = watch(run, 8)
        run.process.send_signal(signal.SIGINT)
        summary = run.finish()
    assert seen[-1]["dropped:busy"] > 100 and set(summary["dropped"]) == {"busy"}
    assert summary["captured"] == summary["delivered"] + summary["dropped"]["busy"] and summary["in_flight"] == 0
    assert summary["stored"] == {"delivered": summary["delivered"], "dropped": summary["dropped"]}
    rows = query(place.data_dir, "SELECT seq FROM frames ORDER BY seq")
    assert [seq for (seq,) in rows] == list(range(summary["captured"])), "every captured frame has its number and row"


@pytest.mark.slow
def test_for_a_minute_picture_age_and_memory_have_no_upward_slope(place: Place, tmp_path: Path) -> None:
    slow = fake_detector(tmp_path / "slow", service_ms=60)
    with up(FAST, "--detector", str(slow), "--classifier", str(place.classifier), **place.dirs) as run:
        run.wait_ready("capture.cam0", "sink.0", "detector.0", "classifier.0")
        wait_for(lambda: flow(scrape(run)["capture.cam0"])["delivered"] > 50, "warm-up")
        start = flow(scrape(run)["capture.cam0"])["captured"]
        seen: list[dict[str, float]] = []
        while not seen or seen[-1]["captured"] < start + 60 * 110:
            seen += watch(run, 1)
        run.process.send_signal(signal.SIGINT)
        summary = run.finish()
    thirds = np.array_split(np.asarray([s["age"] for s in seen]), 3)
    assert np.median(thirds[2]) <= np.median(thirds[0]) + 0.06, "the age of pictures grows"
    for name in [key for key in seen[0] if key.startswith("rss:")]:
        first, last = (np.median([s[name] for s in part]) for part in (seen[: len(seen) // 3], seen[-len(seen) // 3 :]))
        assert last - first < 4096, f"{name} grew by {last - first:.0f} kB between the first and the last third"
    assert summary["captured"] == summary["delivered"] + sum(summary["dropped"].values())


def test_a_live_camera_goes_on_at_the_next_number_when_its_capture_is_killed(place: Place) -> None:
    with up("synthetic://?frames=0&fps=40&width=320&height=240", *place.models, **place.dirs) as run:
        services = run.wait_ready("capture.cam0", "sink.0", "detector.0", "classifier.0")
        wait_for(lambda: query(place.data_dir, "SELECT count(*) FROM frames")[0][0] > 20, "some frames")
        before = query(place.data_dir, "SELECT max(seq) FROM frames")[0][0]
        os.kill(services["capture.cam0"]["pid"], signal.SIGKILL)
        wait_for(
            lambda: query(place.data_dir, "SELECT max(seq) FROM frames")[0][0] > before + 40, "frames after the kill"
        )
        run.process.send_signal(signal.SIGINT)
        summary = run.finish()
    seqs = [seq for (seq,) in query(place.data_dir, "SELECT seq FROM frames ORDER BY seq")]
    assert seqs == list(range(len(seqs))) and len(seqs) == summary["captured"]
    assert summary["captured"] == summary["delivered"] + sum(summary["dropped"].values())
    assert set(summary["dropped"]) <= {"busy", "capture_restart", "deadline"}


def test_without_a_classifier_a_live_frame_is_closed_at_its_deadline_with_its_boxes(place: Place) -> None:
    arguments = ["--classifiers", "1", "--set", "capture.deadline_s=0.5"]
    with up("synthetic://?frames=0&fps=20&width=320&height=240", *place.models, *arguments, **place.dirs) as run:
        run.wait_ready("capture.cam0", "sink.0", "detector.0", "classifier.0")
        assert run.derma("scale", "classifier=0").returncode == 0
        closed = "SELECT count(*) FROM findings WHERE missing = 'deadline'"
        wait_for(lambda: query(place.data_dir, closed)[0][0] >= 4, "findings without classification")
        run.process.send_signal(signal.SIGINT)
        summary = run.finish()
    assert summary["in_flight"] == 0
    late = query(place.data_dir, "SELECT DISTINCT outcome FROM frames WHERE reason = 'deadline'")
    assert late == [("delivered",)]


def test_a_recording_played_live_ends_by_itself(place: Place, tmp_path: Path) -> None:
    video = tmp_path / "in.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 240))
    for i in range(50):
        writer.write(np.full((240, 320, 3), 80 + i, dtype=np.uint8))
    writer.release()
    with up(str(video), "--live", *place.models, **place.dirs) as run:
        summary = run.finish()
    assert summary["captured"] == 50 == summary["delivered"] + sum(summary["dropped"].values())
