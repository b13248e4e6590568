"""What it costs to be seen: CPU seconds of the same run with and without metrics, and with and without tracing.

    python bench/observability.py [--rounds N] [--frames N] [--json]

Real processes, fake models that take no time, so that derma's own work is all there is and a cost shows at its
largest. The pictures come from a camera of 50 a second, so that every run lasts as long, has each frame alone in a
commit, and does as often what time demands: a recording would run as fast as it can, and how many frames then share a
turn of a loop differs more between runs than anything measured here. Each case is run next to a run with everything
off, now before, now after it. What counts is the kernel's account of `derma up` and all its children (RUSAGE_CHILDREN,
exact) less what each process had used when it was ready. A cost is the median of the differences within the pairs. What
is noise on this machine is shown by the first case: two runs with everything off, as a pair.

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
FPS = 50
MOST = 0.8  # of the frames that must be delivered; the work is counted per delivered frame
OFF = {"metrics.enabled": "false", "tracing.enabled": "false"}
TRACED = {"metrics.enabled": "false", "tracing.enabled": "true"}
CASES: dict[str, dict[str, str]] = {
    "all off, again": OFF,
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
    """Run a camera for so many frames and return what it took."""
    source = f"synthetic://?frames={frames}&fps={FPS}&width=320&height=240"
    assignments = [
        "--set",
        "capture.window_live=32",
        *(word for key, value in CASES[case].items() for word in ("--set", f"{key}={value}")),
    ]
    before_s = children_s()
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name:
        directory = Path(name)
        with (
            up(directory, source, *fake_models(directory, 0, 0), *assignments) as run,
            scraped(directory / "data") as sizes,
        ):
            first, _ = watch(run)
            summary = run.finish(ask=False)
        if summary["delivered"] < MOST * frames:
            raise RuntimeError(f"{case}: {summary['delivered']} of {frames} frames were delivered: the machine is busy")
        traces = directory / "data" / TRACES_FILE
        spans = len(traces.read_text().splitlines()) if traces.exists() else 0
    total_s = children_s() - before_s
    start_s = sum(first.values())
    return {
        "work_s": (total_s - start_s) * frames / summary["delivered"],
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
    """Measure every case in every round, each beside a run with everything off."""
    pairs: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = defaultdict(list)
    off = next(iter(CASES))
    measure(off, frames)  # warms the caches of files
    for i in range(rounds):
        for case in CASES:
            first, second = (off, case) if i % 2 else (case, off)
            one, other = measure(first, frames), measure(second, frames)
            pairs[case].append((one, other) if i % 2 else (other, one))
    rows = {}
    for case, taken in pairs.items():
        work_s = statistics.median([with_it["work_s"] for _, with_it in taken])
        off_s = statistics.median([without["work_s"] for without, _ in taken])
        more = [with_it["work_s"] - without["work_s"] for without, with_it in taken]
        others = {k: statistics.median([with_it[k] for _, with_it in taken]) for k in ("start_s", "spans", "scrapes")}
        rows[case] = {
            "off_s": off_s, "work_s": work_s, "more_s": statistics.median(more), "least_more_s": min(more),
            "most_more_s": max(more), "more_share": statistics.median(more) / off_s, **others,
        }  # fmt: skip
    return {
        "rounds": rounds, "frames": frames, "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1),
        "cases": rows, "per_frame_us": per_frame_us(),
    }  # fmt: skip


def show(figures: dict[str, Any]) -> None:
    """Print the figures for a person."""
    n = figures["frames"]
    print(f"{figures['rounds']} pairs of runs of {n} frames; {figures['cores']} cores, load {figures['load']}")
    print(f"{'CPU s, work without start-up':<30}{'off':>7}{'with':>7}{'more: median (min … max)':>28}{'µs/frame':>10}"
          f"{'share':>8}{'start-up s':>12}{'spans':>7}{'scrapes':>9}")  # fmt: skip
    for case, f in figures["cases"].items():
        more = f"{f['more_s']:+.2f} ({f['least_more_s']:+.2f} … {f['most_more_s']:+.2f})"
        print(f"{case:<30}{f['off_s']:>7.2f}{f['work_s']:>7.2f}{more:>28}{f['more_s'] / n * 1e6:>+10.0f}"
              f"{f['more_share']:>+8.1%}{f['start_s']:>12.2f}{f['spans']:>7.0f}{f['scrapes']:>9.0f}")  # fmt: skip
    print("always there, µs: " + "; ".join(f"{what} {us:.2f}" for what, us in figures["per_frame_us"].items()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs for each case")
    parser.add_argument("--frames", type=int, default=600, help="frames of a run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    figures = run_all(arguments.rounds, arguments.frames)
    print(json.dumps(figures)) if arguments.json else show(figures)


if __name__ == "__main__":
    main()
