"""Measure one hop between two processes: a bare ZeroMQ ping, a derma frame, and the pixels inline.

    python bench/transport.py [--json] [--rounds N] [--messages N]

One-way times from just before the send in one process until the other has what it needs; CLOCK_MONOTONIC is the same
clock in both. In each round the cases take turns in random order, one message under way at a time, so that what
disturbs one disturbs all. Times and ratios are medians of the rounds. Before each message the sender writes a picture
of that size into a ring, as capture does (row `write`, not part of any other time), so that all start with equally
cold caches; only the ping of no size has nothing before it.

ping    64 bytes over PUSH/PULL on ipc; the receiver blocks in recv(). Ends when recv() returned.
hop     `messages.Frame` through `transport`, received as a detector does: poll over frames, work and the supervisor's
        pipe, decode, check of the generation, view, first pixel read. Every slot was read once before.
touch   the same until one byte of each 4 KiB page was read: what memory costs on top, not transport.
inline  the pixels as the message, without a copy at the sender; ends when the array's first pixel was read.
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
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from timeit import repeat
from typing import Any

import numpy as np
import zmq

from derma_common import messages as m
from derma_common.rings import RingReader, RingWriter
from derma_common.topology import FRAMES, WORK
from derma_common.transport import Hub
from derma_common.wire import decode, encode

SIZES = {"VGA": (480, 640), "1080p": (1080, 1920), "4K": (2160, 3840)}  # height, width
VARIANTS = ("ping", "hop", "touch", "inline")
RECEIVERS = ("ping", "hop", "inline")  # one process each; the hop's also does the touch
BARE = ("ping", "")
SLOTS = 8
PROMISE = 1.3
DETECTOR = "detector.0"
LATE_MS = 10_000
Case = tuple[str, str]  # variant, size
Percentiles = dict[str, float]


# -- the receiving process ------------------------------------------------------------------------------------


def receive_for_ever(kind: str, directory: Path) -> None:
    """Receive, stamp and answer with the time taken, until the parent kills us."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as answers, context.socket(zmq.PULL) as pull:
        answers.connect(f"ipc://{directory}/answers.sock")
        if kind == "hop":
            _receive_hops(directory, answers)
        pull.bind(f"ipc://{directory}/{kind}.sock")
        answers.send(b"0")
        while kind == "ping":
            stamp = pull.recv()
            now_ns = time.monotonic_ns()
            answers.send(b"%d" % (now_ns - int.from_bytes(stamp[:8], "little")))
        while True:
            part, pixels = pull.recv_multipart(copy=False)
            int(np.frombuffer(pixels.buffer, dtype=np.uint8)[0])
            now_ns = time.monotonic_ns()
            answers.send(b"%d" % (now_ns - int.from_bytes(part.bytes, "little")))


def _receive_hops(directory: Path, answers: zmq.Socket[bytes]) -> None:
    """Receive frames with the sockets that a detector has, as `StageHost.step` does."""
    hub, rings = Hub(directory), RingReader(directory)
    work, frames = hub.serve_work(WORK, DETECTOR, 0), hub.pull(FRAMES, DETECTOR)
    hub.watch(sys.stdin.fileno())
    answers.send(b"0")
    while True:
        hub.wait(0.1)
        for link in (work, frames):
            for message in link.receive(1):
                assert isinstance(message, m.Frame), message
                with rings.picture(message.handle) as image:
                    int(image[0, 0, 0])
                    if message.origin == "touch":
                        int(image.reshape(-1)[::4096].sum())
                    now_ns = time.monotonic_ns()
                answers.send(b"%d" % (now_ns - message.sent_ns))


# -- the sending process --------------------------------------------------------------------------------------


class Sender:
    """Sends one message of a case at a time and waits for the receiver's time."""

    def __init__(self, directory: Path, closing: ExitStack) -> None:
        self._hub = Hub(directory)
        closing.callback(self._hub.close)
        self._answers = self._hub.context.socket(zmq.PULL)
        self._answers.bind(f"ipc://{directory}/answers.sock")
        self._frames = self._hub.push(FRAMES, DETECTOR)
        self._bare = {name: self._hub.context.socket(zmq.PUSH) for name in ("ping", "inline")}
        for name, socket in self._bare.items():
            socket.connect(f"ipc://{directory}/{name}.sock")
        rng = np.random.default_rng(0)
        self._images = {s: rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for s, shape in SIZES.items()}
        self._rings = {s: RingWriter(directory, s.lower(), 0, SLOTS, self._images[s].nbytes) for s in SIZES}
        for ring in self._rings.values():
            closing.callback(ring.close)
        self._held: dict[str, list[m.Handle]] = defaultdict(list)
        self.write_ns: dict[str, list[int]] = defaultdict(list)

    def answer(self) -> int:
        """Wait for a receiver's time in ns. Raises TimeoutError when it is gone."""
        if not self._answers.poll(LATE_MS):
            raise TimeoutError("a receiver does not answer")
        return int(self._answers.recv())

    def send(self, case: Case) -> int:
        """Send one message and return its time in ns."""
        variant, size = case
        handle = self._write(size) if size else None
        if variant == "ping":
            self._bare[variant].send(time.monotonic_ns().to_bytes(8, "little") + bytes(56))
        elif variant == "inline":
            self._bare[variant].send_multipart(
                [time.monotonic_ns().to_bytes(8, "little"), self._images[size].data], copy=False
            )
        else:
            assert handle is not None
            self._frames.send(_frame(handle, variant))
        return self.answer()

    def _write(self, size: str) -> m.Handle:
        """Write a picture into the slot that was free for longest, as a full window makes capture do."""
        ring, held = self._rings[size], self._held[size]
        if not ring.free:
            ring.release(held.pop(0))
        started_ns = time.monotonic_ns()
        held.append(ring.write(self._images[size]))
        self.write_ns[size].append(time.monotonic_ns() - started_ns)
        return held[-1]


def _frame(handle: m.Handle, origin: str) -> m.Frame:
    return m.Frame(
        handle.camera, 1234, 0, time.monotonic_ns(), time.time_ns(), handle, origin, 0, 0, time.monotonic_ns()
    )


def _start_receiver(kind: str, directory: Path, closing: ExitStack) -> None:
    command = [sys.executable, os.path.abspath(__file__), "--directory", str(directory), "--receive", kind]
    process = closing.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
    closing.callback(process.kill)


# -- the figures ----------------------------------------------------------------------------------------------


def measure(rounds: int, messages: int) -> dict[str, Any]:
    """Return the figures of `rounds` rounds with `messages` messages of each case."""
    cases: list[Case] = [BARE, *((variant, size) for size in SIZES for variant in VARIANTS)]
    with ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm", prefix="derma-bench-")))
        sender = Sender(directory, closing)
        for kind in RECEIVERS:
            _start_receiver(kind, directory, closing)
            sender.answer()
        one_round(sender, cases, 2 * SLOTS)
        sender.write_ns.clear()
        table = [one_round(sender, cases, messages) for _ in range(rounds)]
    return {
        "rounds": rounds, "messages": messages, "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1), "promise": PROMISE, "wire_us": wire_us(),
        "write_us": {size: round(statistics.median(times) / 1000, 1) for size, times in sender.write_ns.items()},
        "rows": [_row(table, case) for case in cases],
    }  # fmt: skip


def one_round(sender: Sender, cases: list[Case], messages: int) -> dict[Case, Percentiles]:
    """Send `messages` of each case in random order; return percentiles in µs."""
    times: dict[Case, list[int]] = defaultdict(list)
    for _ in range(messages):
        for case in random.sample(cases, len(cases)):
            time.sleep(0.001)  # so both sides are asleep when a message comes, as between two pictures
            times[case].append(sender.send(case))
    return {c: {f"p{q}": float(np.percentile(ns, q)) / 1000 for q in (50, 99)} for c, ns in times.items()}


def _row(table: list[dict[Case, Percentiles]], case: Case) -> dict[str, Any]:
    variant, size = case
    out: dict[str, Any] = {"variant": variant, "size": size}
    for q in ("p50", "p99"):
        out[f"{q}_us"] = round(statistics.median(t[case][q] for t in table), 1)
        for name, ping in (("ping", ("ping", size)), ("bare_ping", BARE)):
            out[f"{q}_to_{name}"] = round(statistics.median(t[case][q] / t[ping][q] for t in table), 2)
    return out


def wire_us() -> dict[str, float]:
    """Return µs to encode and to decode a Frame, the best of many short runs."""
    frame = _frame(m.Handle("cam0", 0, 3, 42, 1080, 1920), "")
    data = encode(frame)
    calls: dict[str, Callable[[], object]] = {"encode": lambda: encode(frame), "decode": lambda: decode(data)}
    return {name: round(min(repeat(call, number=200, repeat=50)) / 200 * 1e6, 1) for name, call in calls.items()}


def show(figures: dict[str, Any]) -> None:
    """Print the table for a person."""
    print("{rounds} rounds of {messages} messages per case; {cores} cores, load {load}".format(**figures))
    print(f"{'one way, µs':<16}{'p50':>9}{'p99':>9}   of the ping of that size   of the bare ping (p50)")
    for row in figures["rows"]:
        name = f"{row['size']} {row['variant']}".strip()
        ratios = f"{row['p50_to_ping']:>10}{row['p50_to_bare_ping']:>25}"
        print(f"{name:<16}{row['p50_us']:>9}{row['p99_us']:>9}{ratios}")
    print("write, µs: " + ", ".join(f"{size} {us}" for size, us in figures["write_us"].items()))
    print("messages.Frame: encode {encode} µs, decode {decode} µs".format(**figures["wire_us"]))
    for row in figures["rows"]:
        if row["variant"] == "hop" and row["size"] != "VGA":
            verdict = "kept" if row["p50_to_ping"] <= PROMISE else "MISSED"
            print(f"promise: {row['size']} hop ≤ {PROMISE} × ping: {row['p50_to_ping']} {verdict}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--receive", choices=RECEIVERS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        return receive_for_ever(arguments.receive, arguments.directory)
    figures = measure(arguments.rounds, arguments.messages)
    print(json.dumps(figures)) if arguments.json else show(figures)


if __name__ == "__main__":
    main()
