"""Kill services of a running exam with SIGKILL and measure how long it takes until work goes on.

    python bench/recovery.py [--json] [--kills N] [--seed S]

A recorded synthetic source goes through `derma up` with fake models (20 ms a picture, 10 ms a batch of crops), so that
what is measured is derma and not a network's loading. Each service is killed N times at random moments, in random
order. For each kill, from the kill on:

ready    until `derma ps` shows a new process of this instance at work (asked every 20 ms)
durable  until the next frame's findings were durable; frames that had passed the killed stage come soon after the kill
stall    the end of the longest pause between two durable frames that began before it was ready again; for capture
         that includes about half a second in which the synthetic source draws its scene anew

At the end the run is asked to finish what is in flight; then every frame that was captured must have been delivered
once, with none left out, and shared memory must be empty: `whole` and the exit status say so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import Run, fake_models, up, wait_for

from derma_common.topology import service_of

SOURCE = "synthetic://?frames=1000000&seed=1"
DURABLE_NS = "SELECT f.captured_ns + t.end_to_end_ns FROM frames f JOIN timings t USING (run, camera, seq)"
FIGURES = ("ready", "durable", "stall")


@dataclass(frozen=True)
class Kill:
    """One kill: which service, when, and when its successor was at work."""

    service: str
    killed_ns: int
    ready_ns: int


def kill(run: Run, instance: str) -> Kill:
    """Kill one instance and wait until its successor is at work."""
    before = run.services()[instance]
    killed_ns = time.monotonic_ns()
    os.kill(before.pid, signal.SIGKILL)

    def is_back() -> bool:
        now = run.services().get(instance)
        return now is not None and now.state == "ready" and now.pid != before.pid

    wait_for(is_back, f"{instance} to be back")
    return Kill(service_of(instance).value, killed_ns, time.monotonic_ns())


def times_s(event: Kill, durable_ns: list[int]) -> dict[str, float]:
    """Return the figures of one kill; `durable_ns` is sorted."""
    first = bisect_right(durable_ns, event.killed_ns)
    last = bisect_right(durable_ns, event.ready_ns)
    _, ended_ns = max((durable_ns[i] - durable_ns[i - 1], durable_ns[i]) for i in range(max(1, first), last + 1))
    ends_ns = {"ready": event.ready_ns, "durable": durable_ns[first], "stall": ended_ns}
    return {name: (ns - event.killed_ns) / 1e9 for name, ns in ends_ns.items()}


def whole(run: Run, summary: dict[str, Any]) -> dict[str, Any]:
    """Say whether every captured frame was delivered once and nothing is left behind."""
    rows = run.rows("SELECT seq, outcome FROM frames ORDER BY seq")
    frames, findings = len(rows), run.rows("SELECT count(*) FROM findings")[0][0]
    facts = {
        "captured": summary["captured"], "delivered": summary["delivered"], "dropped": summary["dropped"],
        "rows": frames, "findings": findings, "shm_files_left": run.shm_files(),
    }  # fmt: skip
    each_once = rows == [(seq, "delivered") for seq in range(frames)] and findings == 2 * frames
    counted = summary["captured"] == summary["delivered"] == frames and not summary["dropped"]
    return facts | {"whole": each_once and counted and not facts["shm_files_left"]}


def measure(kills: int, seed: int) -> dict[str, Any]:
    """Kill each service `kills` times and return the figures."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name:
        models = fake_models(Path(name), detector_ms=20, classifier_ms=10)
        with up(Path(name), SOURCE, "--classifiers", "1", *models) as run:
            instances = sorted(wait_for(run.all_ready, "the services to be ready"))
            events = []
            for instance in rng.sample(instances * kills, kills * len(instances)):
                time.sleep(rng.uniform(0.5, 1.5))
                wait_for(run.all_ready, "the services to be ready")
                events.append(kill(run, instance))
            time.sleep(2.0)
            facts = whole(run, run.finish(ask=True))
            durable = run.rows(
                "SELECT f.captured_ns + t.end_to_end_ns FROM frames f JOIN timings t USING (run, camera, seq)"
            )
    by_service: dict[str, list[dict[str, float]]] = defaultdict(list)
    for event in events:
        by_service[event.service].append(times_s(event, sorted(ns for (ns,) in durable)))
    return {"seed": seed, "kills_each": kills, "load": round(os.getloadavg()[0], 1), "outcome": facts} | {
        "services": {service: _summary(rows) for service, rows in sorted(by_service.items())}
    }


def _summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    columns = {name: [row[name] for row in rows] for name in FIGURES}
    return {n: {"p50_s": round(statistics.median(v), 2), "max_s": round(max(v), 2)} for n, v in columns.items()}


def show(figures: dict[str, Any]) -> None:
    """Print the table for a person."""
    print(f"{figures['kills_each']} kills of each service, seed {figures['seed']}, load {figures['load']}")
    print(f"{'s after SIGKILL':<16}" + "".join(f"{name + ' p50':>13}{'max':>7}" for name in FIGURES))
    for service, row in figures["services"].items():
        print(f"{service:<16}" + "".join(f"{row[n]['p50_s']:>13.2f}{row[n]['max_s']:>7.2f}" for n in FIGURES))
    facts = dict(figures["outcome"])
    verdict = "every frame delivered once, nothing left" if facts.pop("whole") else "NOT WHOLE"
    print(f"{verdict}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))


def main() -> int:
    """Measure and print; 1 when something was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--kills", type=int, default=5, help="of each service")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    figures = measure(arguments.kills, arguments.seed)
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0 if figures["outcome"]["whole"] else 1


if __name__ == "__main__":
    sys.exit(main())
