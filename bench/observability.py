"""What it costs to be seen: CPU seconds of the same run with and without metrics, and with and without tracing.

    python bench/observability.py [--rounds N] [--frames N] [--json]

Real processes, fake models that take no time, so that derma's own work is all there is and a cost shows at its
largest. The cases take turns; their order turns with the round. What counts is the kernel's account of `derma up`
and all its children (RUSAGE_CHILDREN, exact) less what each process had used when it was ready; median of the rounds.
A cost is the median of the differences from the same round's run with everything off.

With metrics, every endpoint is scraped once a second, as Prometheus would. The counting itself cannot be switched
off; it is timed apart, with the other things that each frame costs while everything is off. Needs the extra `trace`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import timeit
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from overhead import children_s, watch
from runs import fake_models, up

from derma_common.logs import FRAME
from derma_common.messages import Frame, Handle
from derma_common.settings import TracingSettings
from derma_common.telemetry import Metrics
from derma_common.tracing import TRACES_FILE, Head
from derma_common.wire import decode, encode

SCRAPE_EVERY_S = 1.0
OFF = {"metrics.enabled": "false", "tracing.enabled": "false"}
TRACED = {"metrics.enabled": "false", "tracing.enabled": "true"}
CASES: dict[str, dict[str, str]] = {
    "all off": OFF,
    "metrics": OFF | {"metrics.enabled": "true"},
    "tracing, ratio 0": TRACED | {"tracing.sample_ratio": "0.0"},
    "tracing, ratio 0.1": TRACED | {"tracing.sample_ratio": "0.1"},
    "tracing, ratio 1": TRACED | {"tracing.sample_ratio": "1.0"},
}


@contextmanager
def scraped(data_dir: Path) -> Iterator[list[int]]:
    """Scrape every endpoint of the run once a second; gives the sizes of the answers."""
    ended, sizes = threading.Event(), list[int]()

    def scrape() -> None:
        while not ended.wait(SCRAPE_EVERY_S):
            try:
                groups = json.loads((data_dir / "prometheus-targets.json").read_text())
                for target in [t for group in groups for t in group["targets"]]:
                    with urllib.request.urlopen(f"http://{target}/metrics", timeout=1) as answer:
                        sizes.append(len(answer.read()))
            except (OSError, ValueError):
                continue  # not up yet, or gone

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()


def measure(case: str, frames: int) -> dict[str, float]:
    """Run a recording of so many frames and return what it took."""
    source = f"synthetic://?frames={frames}&width=320&height=240"
    assignments = [word for key, value in CASES[case].items() for word in ("--set", f"{key}={value}")]
    before_s = children_s()
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name:
        directory = Path(name)
        with (
            up(directory, source, *fake_models(directory, 0, 0), *assignments) as run,
            scraped(directory / "data") as sizes,
        ):
            first, _ = watch(run)
            summary = run.finish(ask=False)
        if summary["delivered"] != frames:
            raise RuntimeError(f"{case}: {summary['delivered']} of {frames} frames were delivered")
        traces = directory / "data" / TRACES_FILE
        spans = len(traces.read_text().splitlines()) if traces.exists() else 0
    total_s = children_s() - before_s
    start_s = sum(first.values())
    return {
        "work_s": total_s - start_s,
        "start_s": start_s,
        "spans": spans,
        "scrapes": len(sizes),
        "fps": summary["fps"],
    }


def per_frame_us() -> dict[str, float]:
    """Time what each frame costs while everything is off, in µs, alone in this process."""
    head = Head("run", "cam0", TracingSettings())
    with_trace = Frame(
        "cam0", 7, 0, 1 << 50, 1 << 60, Handle("cam0", 0, 1, 2, 1080, 1920), "", 1000, 2000, 1 << 50, head.context(7, 0)
    )
    without = replace(with_trace, trace=b"")
    histogram = Metrics("detector.0").wait

    def us(call: Any, n: int = 20_000) -> float:
        return min(timeit.repeat(call, number=n, repeat=7)) / n * 1e6

    def hop(frame: Frame) -> float:
        return us(lambda: decode(encode(frame)), 5_000)

    return {
        "context of a frame, made by capture": us(lambda: head.context(7, 0)),
        "26 bytes more in a message, there and back": hop(with_trace) - hop(without),
        "frame in hand, noted for the log": us(lambda: (FRAME.set(("cam0", 7, 0)), FRAME.set(None))),
        "one observation of a histogram": us(lambda: histogram.observe(0.01)),
    }


def run_all(rounds: int, frames: int) -> dict[str, Any]:
    """Measure every case in every round."""
    taken: dict[str, list[dict[str, float]]] = defaultdict(list)
    names = list(CASES)
    measure("all off", frames)  # warms the caches of files
    for i in range(rounds):
        for case in names[i % len(names) :] + names[: i % len(names)]:
            taken[case].append(measure(case, frames))
    base = taken["all off"]
    rows = {}
    for case in names:
        more = [a["work_s"] - b["work_s"] for a, b in zip(taken[case], base, strict=True)]
        work = [t["work_s"] for t in taken[case]]
        rows[case] = {
            "work_s": statistics.median(work), "least_s": min(work), "most_s": max(work),
            "more_s": statistics.median(more), "more_share": statistics.median(more) / statistics.median(
                [b["work_s"] for b in base]
            ),
            "start_s": statistics.median([t["start_s"] for t in taken[case]]),
            "spans": statistics.median([t["spans"] for t in taken[case]]),
            "scrapes": statistics.median([t["scrapes"] for t in taken[case]]),
        }  # fmt: skip
    return {
        "rounds": rounds, "frames": frames, "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1),
        "cases": rows, "per_frame_us": per_frame_us(),
    }  # fmt: skip


def show(figures: dict[str, Any]) -> None:
    """Print the figures for a person."""
    n = figures["frames"]
    print(f"{figures['rounds']} rounds of {n} frames; {figures['cores']} cores, load {figures['load']}")
    print(f"{'CPU, work without start-up':<28}{'median s':>9}{'min–max':>14}{'more s':>9}{'µs/frame':>10}{'more':>8}"
          f"{'start-up s':>12}{'spans':>8}{'scrapes':>9}")  # fmt: skip
    for case, f in figures["cases"].items():
        print(f"{case:<28}{f['work_s']:>9.2f}{f['least_s']:>8.2f}–{f['most_s']:.2f}{f['more_s']:>+10.2f}"
              f"{f['more_s'] / n * 1e6:>+10.0f}{f['more_share']:>+8.1%}{f['start_s']:>12.2f}{f['spans']:>8.0f}"
              f"{f['scrapes']:>9.0f}")  # fmt: skip
    print("always there, µs: " + "; ".join(f"{what} {us:.2f}" for what, us in figures["per_frame_us"].items()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="runs of each case")
    parser.add_argument("--frames", type=int, default=1500, help="frames of a run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    figures = run_all(arguments.rounds, arguments.frames)
    print(json.dumps(figures)) if arguments.json else show(figures)


if __name__ == "__main__":
    main()
