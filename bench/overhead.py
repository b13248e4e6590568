"""Account for the CPU time of an exam: networks, video decode, and everything else.

    python bench/overhead.py [--json] [SOURCE]

The source (default: the sample recording) goes through `derma up` with the shipped models. The kernel's own count
of `derma up` and all its children (RUSAGE_CHILDREN, exact) is the total. What each process had used when it was ready
is its start-up (imports, opening of the networks; sampled every 20 ms from /proc), listed apart; the rest is work.

Then the same pictures are decoded and the same detections and classifications run again here, alone, one after the
other, with the same threads, and the CPU time inside `Runner.infer` and inside the source's decoder is summed up.
Work less those two is derma's own: rings, messages, letterbox, NMS, crops, database, polling. Alone, a network
takes less CPU time than beside other busy processes, so derma's share comes out too high rather than too low.
Replayed and measured apart: the share of derma's own that prepares pictures for the networks and reads their outputs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runs import Run, up, wait_for

from derma_common.inference.classification import Classifier
from derma_common.inference.detection import Detector
from derma_common.inference.opening import open_runner
from derma_common.inference.runner import Array, Runner
from derma_common.preprocess import cut, square_around
from derma_common.recordings import open_recording
from derma_common.seqset import SeqSet
from derma_common.shipped import model_dir, shipped

PROMISE = 0.10
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float | None:
    """Return user and system time of a process, None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * TICK_S


class Clock:
    """CPU time of this process with all its threads, by what it was spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the block for `what`."""
        started = time.process_time()
        yield
        self.spent[what] += time.process_time() - started


class TimedRunner:
    """A runner whose inferences are counted."""

    def __init__(self, runner: Runner, clock: Clock, what: str) -> None:
        self._runner, self._clock, self._what = runner, clock, what

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network."""
        with self._clock.on(self._what):
            return self._runner.infer(inputs)


def replay(run: Run, source: str) -> dict[str, float]:
    """Do the networks' and the decoder's work of a run again and return its CPU seconds by kind."""
    clock, settings = Clock(), run.settings
    card, runner = open_runner(model_dir(settings.detector.model), "detector", settings.detector.threads)
    detector = Detector(card, TimedRunner(runner, clock, "detector network"))  # type: ignore[arg-type]
    card, runner = open_runner(model_dir(settings.classifier.model), "classifier", settings.classifier.threads)
    classifier = Classifier(card, TimedRunner(runner, clock, "classifier network"))  # type: ignore[arg-type]
    pictures = open_recording(source).pictures(SeqSet())
    while True:
        with clock.on("decode"):
            picture = next(pictures, None)
        if picture is None or picture.image is None:
            break
        with clock.on("around the networks"):
            found = detector.detect(picture.image)
            squares = [square_around(box, card.crop_margin) for box in found.boxes]
            classifier.classify([cut(picture.image, square, card.input.width) for square in squares])
    clock.spent["around the networks"] -= clock.spent["detector network"] + clock.spent["classifier network"]
    return dict(clock.spent)


def watch(run: Run) -> tuple[dict[str, float], dict[str, float]]:
    """Follow a run to its end; return each process's CPU seconds when it was ready, and when last seen."""
    services = wait_for(run.all_ready, "the services to be ready")
    pids = {name: s.pid for name, s in services.items()} | {"supervisor": run.process.pid}
    last = {name: cpu_s(pid) or 0.0 for name, pid in pids.items()}
    first = dict(last)
    while run.process.poll() is None:
        last |= {name: used for name, pid in pids.items() if (used := cpu_s(pid)) is not None and used >= last[name]}
        time.sleep(0.02)
    return first, last


def children_s() -> float:
    """Return the CPU seconds of all children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(source: str) -> dict[str, Any]:
    """Run the exam and its replay and return the account."""
    before_s = children_s()
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name:
        with up(Path(name), source) as run:
            first, last = watch(run)
            summary = run.finish(ask=False)
        total_s = children_s() - before_s
        parts = replay(run, source)
    start_s = sum(first.values())
    work_s = total_s - start_s
    named_s = {part: parts[part] for part in ("decode", "detector network", "classifier network")}
    own_s = work_s - sum(named_s.values())
    return {
        "source": Path(source).name, "frames": summary["delivered"], "findings": summary["findings"],
        "fps": summary["fps"], "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1),
        "total_s": total_s, "start_up_s": start_s, "work_s": work_s, **{f"{k} s": v for k, v in named_s.items()},
        "own_s": own_s, "own_share": own_s / work_s, "own_share_with_start_up": (own_s + start_s) / total_s,
        "of which around the networks s": parts["around the networks"],
        "processes_work_s": {name: last[name] - first[name] for name in sorted(last)}, "promise": PROMISE,
    }  # fmt: skip


def show(f: dict[str, Any]) -> None:
    """Print the account for a person."""
    print(f"{f['source']}: {f['frames']} frames, {f['findings']} findings, {f['fps']} frames/s; "
          f"{f['cores']} cores, load {f['load']}")  # fmt: skip
    print(f"{'CPU':<34}{'s':>8}{'ms/frame':>10}{'of work':>9}")
    rows = [("decode", "decode s"), ("detector network", "detector network s"),
            ("classifier network", "classifier network s"), ("derma's own", "own_s"),
            ("  of which around the networks", "of which around the networks s"), ("work", "work_s")]  # fmt: skip
    for label, key in rows:
        print(f"{label:<34}{f[key]:>8.2f}{1000 * f[key] / f['frames']:>10.2f}{f[key] / f['work_s']:>9.1%}")
    print(f"{'start-up (not in work)':<34}{f['start_up_s']:>8.2f}")
    print("work by process, s: " + ", ".join(f"{name} {s:.2f}" for name, s in f["processes_work_s"].items()))
    verdict = "kept" if f["own_share"] <= PROMISE else "MISSED"
    print(f"promise: derma's own ≤ {PROMISE:.0%} of work: {f['own_share']:.1%} {verdict}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", nargs="?", default=str(shipped("samples") / "drawn-exam.mp4"), help="a recording")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    figures = measure(arguments.source)
    if arguments.json:
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}))
    else:
        show(figures)


if __name__ == "__main__":
    main()
