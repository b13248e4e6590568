"""Measure classifiers behind Redis: latency of a crop, and throughput by the number of workers.

    python bench/cloud.py [--json] [--rounds N] [--messages N] [--workers 1,2,4,8,16] [--service-ms MS]

The server is a redis-server of the benchmark's own with the shipped configuration: TLS on the loopback, users,
append-only file. The networks are fakes that take a stated time, so what is measured is the way there and back.

Latency, one crop under way at a time, cases in random order in each round, medians of the rounds:
bare    the entry's bytes to Redis and its answer (XADD): what any way through Redis costs at least twice
local   the same classifier called in this process
remote  from before the entry is packed until the result is unpacked, through a worker whose network takes 0 ms

Throughput: as many crops as keep every worker busy for some seconds are sent at once; a worker takes one at a time and
sleeps for the service time. Ideal is workers / service time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from derma_common.cloud.entries import CropJob, JobResult, pack, picture_of, unpack
from derma_common.cloud.streams import CLASSIFIERS, Line, jobs_key, results_key
from derma_common.inference.card import ModelCard, read_card, write_card
from derma_common.inference.classification import Classifier
from derma_common.inference.fake import fake_classifier
from derma_common.preprocess import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # their server has the shipped configuration
from support.redis_server import Authority, RedisServer

SIDES = {"20 kB": 82, "150 kB": 224}  # px of a crop: 3 bytes each
SITE = "room1"
FOR_EVER_NS = 3_600_000_000_000
LATE_S = 120.0
Case = tuple[str, str]  # what, size


def model(directory: Path, side: int, service_ms: float) -> Path:
    """Make a fake classifier for crops of side × side px."""
    fake_classifier(directory, service_ms=service_ms, side=side)  # each side a file, so a stream, of its own
    card = read_card(directory)
    write_card(replace(card, input=replace(card.input, width=side, height=side)), directory)
    return directory


def job(card: ModelCard, image: Image, name: str) -> bytes:
    """Return an entry with the crop image (h, w, 3) uint8 BGR."""
    return pack(CropJob(SITE, name, card.id, FOR_EVER_NS, picture_of(image, "raw")))


@contextmanager
def workers(server: RedisServer, directory: Path, count: int, line: Line, log: Path) -> Iterator[None]:
    """Run worker processes until the block ends; it begins when all are at work."""
    command = [sys.executable, "-m", "derma_classifier.remote", "--model", str(directory), "--count", "1"]
    with log.open("wb") as output:
        children = [
            subprocess.Popen(command, env=os.environ | server.settings("classifier"), stdout=output, stderr=output)
            for _ in range(count)
        ]
    key, card = jobs_key(read_card(directory).sha256), read_card(directory)
    try:
        # each of them has to be seen at work once: crops one by one until all names have answered
        seen, last = set[str](), line.last_id(results_key(SITE))
        tiny = np.zeros((card.input.height, card.input.width, 3), dtype=np.uint8)
        deadline = time.monotonic() + LATE_S
        while len(seen) < count:
            line.send([(key, "*", job(card, tiny, "warm up"))] * count)
            for delivery in line.read({results_key(SITE): last}, 1000, 1.0):
                last = delivery.id
                seen.add(unpack(delivery.data, JobResult).worker)
            if time.monotonic() > deadline or any(child.poll() is not None for child in children):
                raise SystemExit(f"workers did not start: {log.read_text(errors='replace')[-500:]}")
        _drained(line, server, key)
        yield
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(30)


def _drained(line: Line, server: RedisServer, key: str) -> None:
    """Wait until nothing is under way."""
    watch = Line(server.access("scaler"))
    while (backlog := watch.backlog(key, CLASSIFIERS)).waiting + backlog.pending:
        time.sleep(0.02)
    watch.close()
    line.forget(results_key(SITE), f"{2**63}-0")


class Latency:
    """One crop at a time through each way."""

    def __init__(self, line: Line, models: dict[str, Path]) -> None:
        self._line = line
        self._cards = {size: read_card(path) for size, path in models.items()}
        self._local = {size: Classifier.open(path) for size, path in models.items()}
        rng = np.random.default_rng(0)
        self._images = {s: rng.integers(0, 255, (side, side, 3), dtype=np.uint8) for s, side in SIDES.items()}
        self._after, self._n = line.last_id(results_key(SITE)), 0

    def once(self, case: Case) -> float:
        """Return the ms of one crop."""
        what, size = case
        card, image = self._cards[size], self._images[size]
        entry = job(card, image, "bare")
        started_ns = time.monotonic_ns()
        if what == "bare":
            self._line.send([("derma:jobs:nobody", "*", entry)])
        elif what == "local":
            self._local[size].classify([image])
        else:
            self._n += 1
            self._line.send([(jobs_key(card.sha256), "*", job(card, image, str(self._n)))])
            self._answer(str(self._n))
        return (time.monotonic_ns() - started_ns) / 1e6

    def _answer(self, name: str) -> None:
        while True:
            for delivery in self._line.read({results_key(SITE): self._after}, 10, 2.0):
                self._after = delivery.id
                if unpack(delivery.data, JobResult).job == name:
                    return


def latencies(server: RedisServer, line: Line, home: Path, rounds: int, messages: int) -> list[dict[str, Any]]:
    """Return a row for each case."""
    models = {size: model(home / f"m{side}", side, 0.0) for size, side in SIDES.items()}
    cases: list[Case] = [(what, size) for size in SIDES for what in ("bare", "local", "remote")]
    table: list[dict[Case, list[float]]] = []
    first, second = models.values()
    with workers(server, first, 1, line, home / "a.log"), workers(server, second, 1, line, home / "b.log"):
        one = Latency(line, models)
        for number in range(rounds + 1):
            times: dict[Case, list[float]] = defaultdict(list)
            for _ in range(messages if number else 10):
                for case in random.sample(cases, len(cases)):
                    time.sleep(0.001)
                    times[case].append(one.once(case))
            table += [times] if number else []  # the first is for warming up
    rows = []
    for what, size in cases:
        row: dict[str, Any] = {"case": what, "size": size}
        for q in (50, 99):
            row[f"p{q}_ms"] = round(statistics.median(np.percentile(t[what, size], q) for t in table), 2)
            ratios = [np.percentile(t[what, size], q) / np.percentile(t["bare", size], q) for t in table]
            row[f"p{q}_to_bare"] = round(statistics.median(ratios), 2)
        rows.append(row)
    return rows


def throughput(
    server: RedisServer, line: Line, home: Path, count: int, service_ms: float, seconds: float
) -> dict[str, Any]:
    """Return crops per second with so many workers."""
    directory = model(home / f"t{count}", SIDES["20 kB"], service_ms)
    card = read_card(directory)
    key, ideal = jobs_key(card.sha256), count * 1000 / service_ms
    image = np.zeros((card.input.height, card.input.width, 3), dtype=np.uint8)
    with workers(server, directory, count, line, home / f"t{count}.log"):
        names = {str(i) for i in range(round(ideal * seconds))}
        entries = [(key, "*", job(card, image, name)) for name in sorted(names)]
        after, done = line.last_id(results_key(SITE)), 0
        started = time.monotonic()
        line.send(entries)
        sent_s = time.monotonic() - started
        while names:
            for delivery in line.read({results_key(SITE): after}, 1000, 1.0):
                after = delivery.id
                names.discard(unpack(delivery.data, JobResult).job)
                done += 1
        took_s = time.monotonic() - started
    per_s = len(entries) / took_s
    return {
        "workers": count, "crops": len(entries), "per_s": round(per_s, 1), "ideal_per_s": round(ideal, 1),
        "of_ideal": round(per_s / ideal, 2), "sent_in_s": round(sent_s, 2), "twice": done - len(entries),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=60)
    parser.add_argument("--workers", default="1,2,4,8,16")
    parser.add_argument("--service-ms", type=float, default=50.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name:
        home = Path(name)
        guarded = RedisServer(home / "redis", Authority(home / "ca"))
        with guarded as server, closing(Line(server.access("site-room1"))) as line:
            figures = {
                "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1),
                "service_ms": arguments.service_ms,
                "latency": latencies(server, line, home, arguments.rounds, arguments.messages),
                "throughput": [
                    throughput(server, line, home, int(n), arguments.service_ms, seconds=4.0)
                    for n in arguments.workers.split(",")
                ],
            }  # fmt: skip
    print(json.dumps(figures)) if arguments.json else show(figures)


def show(figures: dict[str, Any]) -> None:
    """Print the tables for a person."""
    print("one crop at a time; {cores} cores, load {load}".format(**figures))
    print(f"{'ms':<16}{'p50':>8}{'p99':>9}{'to bare p50':>14}{'p99':>8}")
    for row in figures["latency"]:
        print("{size:<7} {case:<8}{p50_ms:>8}{p99_ms:>9}{p50_to_bare:>14}{p99_to_bare:>8}".format(**row))
    print("\nservice time {service_ms:g} ms".format(**figures))
    print(f"{'workers':<9}{'crops/s':>9}{'ideal':>9}{'of ideal':>10}{'twice':>8}")
    for row in figures["throughput"]:
        print("{workers:<9}{per_s:>9}{ideal_per_s:>9}{of_ideal:>10}{twice:>8}".format(**row))


if __name__ == "__main__":
    main()
