"""Measure one hop between two processes: a bare ZeroMQ ping, a derma frame, and the pixels inline.

    python bench/transport.py [--json] [--rounds N] [--messages N]

All three are one-way times from just before the send in one process to the moment the other has what it needs;
CLOCK_MONOTONIC is the same clock in both. In each round the variants take turns in random order, one message
under way at a time, so that what disturbs one disturbs all; figures are medians of the rounds.

ping    64 bytes over PUSH/PULL on ipc; the receiver has blocked in recv(). Ends when recv() returned.
hop     `messages.Frame` through `transport` and a `rings` slot, received as a service receives: poll over frames, work
        and the supervisor's pipe, decode, view, generation check, first row of pixels read. Writing the pixels into
        the ring came before (column `write`); every slot was read once before the measurement.
touch   the same hop until one byte of each 4 KiB page was read as well: what memory costs, not transport.
inline  the pixels as the message, without a copy at the sender; ends when the first row of the array was read.
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from timeit import repeat
from typing import Any

import numpy as np
import zmq

from derma_common import messages as m
from derma_common.rings import RingReader, RingWriter
from derma_common.topology import FRAMES, WORK
from derma_common.transport import Hub, Link
from derma_common.wire import decode, encode

SIZES = {"VGA": (480, 640), "1080p": (1080, 1920), "4K": (2160, 3840)}  # height, width
VARIANTS = ("ping", "hop", "inline")
SLOTS = 8
PROMISE = 1.3
DETECTOR = "detector.0"
LATE_MS = 10_000
Times = tuple[int, int]  # from the send: until readable, until each page was touched; ns


# -- the receiving process ------------------------------------------------------------------------------------


def receive_for_ever(variant: str, directory: Path) -> None:
    """Receive, stamp, and answer with two times, until the parent's pipe closes and it kills us."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as answers:
        answers.linger = 0
        answers.connect(f"ipc://{directory}/answers.sock")
        if variant == "hop":
            _receive_hops(directory, answers)
        pull = context.socket(zmq.PULL)
        pull.bind(f"ipc://{directory}/{variant}.sock")
        answers.send_json((0, 0))
        while True:
            _receive_bare(variant, pull, answers)


def _receive_bare(variant: str, pull: zmq.Socket[bytes], answers: zmq.Socket[bytes]) -> None:
    """Receive a ping, or pixels (H × W × 3 bytes) behind a part that holds the time of sending."""
    if variant == "ping":
        payload = pull.recv()
        now_ns = readable_ns = time.monotonic_ns()
        sent_ns = int.from_bytes(payload[:8], "little")
    else:
        stamp, pixels = pull.recv_multipart(copy=False)
        flat = np.frombuffer(pixels.buffer, dtype=np.uint8)
        readable_ns = _read_first_row(flat)
        now_ns = _touch(flat)
        sent_ns = int.from_bytes(stamp.bytes, "little")
    answers.send_json((readable_ns - sent_ns, now_ns - sent_ns))


def _receive_hops(directory: Path, answers: zmq.Socket[bytes]) -> None:
    """Receive frames with the sockets that a detector has, as `StageHost.step` does."""
    hub, rings = Hub(directory), RingReader(directory)
    work, frames = hub.serve_work(WORK, DETECTOR), hub.pull(FRAMES, DETECTOR)
    hub.watch(sys.stdin.fileno())
    answers.send_json((0, 0))
    while True:
        hub.wait(0.1)
        for link in (work, frames):
            for message in link.receive(1):
                assert isinstance(message, m.Frame), message
                with rings.picture(message.handle) as image:
                    flat = image.reshape(-1)
                    readable_ns = _read_first_row(flat)
                    touched_ns = _touch(flat)
                answers.send_json((readable_ns - message.sent_ns, touched_ns - message.sent_ns))


def _read_first_row(flat: Any) -> int:
    int(flat[: 640 * 3].sum())
    return time.monotonic_ns()


def _touch(flat: Any) -> int:
    int(flat[::4096].sum())
    return time.monotonic_ns()


# -- the sending process --------------------------------------------------------------------------------------


class Sender:
    """Sends one message of a variant and size at a time and waits for the receiver's times."""

    def __init__(self, directory: Path, closing: ExitStack) -> None:
        self.directory = directory
        self.hub = Hub(directory)
        closing.callback(self.hub.close)
        self._closing = closing
        self._answers = self._socket(zmq.PULL)
        self._answers.bind(f"ipc://{directory}/answers.sock")
        self._sockets = {name: self._socket(zmq.PUSH) for name in ("ping", "inline")}
        self._frames: Link = self.hub.push(FRAMES, DETECTOR)
        for name, socket in self._sockets.items():
            socket.connect(f"ipc://{directory}/{name}.sock")
        rng = np.random.default_rng(0)
        self._images = {s: rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for s, shape in SIZES.items()}
        self._rings: dict[str, RingWriter] = {}
        self.write_ns: dict[str, list[int]] = defaultdict(list)
        self._seq = 0

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self.hub.context.socket(kind)
        socket.linger = 0
        return socket

    def answer(self) -> Times:
        """Wait for the receiver's times. Raises TimeoutError when a receiver is gone."""
        if not self._answers.poll(LATE_MS):
            raise TimeoutError("a receiver does not answer")
        readable_ns, touched_ns = self._answers.recv_json()
        return readable_ns, touched_ns

    def send(self, variant: str, size: str) -> Times:
        """Send one message and return its times."""
        if variant == "hop":
            return self._hop(size)
        socket = self._sockets[variant]
        if variant == "ping":
            socket.send(time.monotonic_ns().to_bytes(8, "little") + bytes(56))
        else:
            stamp = time.monotonic_ns().to_bytes(8, "little")
            socket.send_multipart([stamp, self._images[size].data], copy=False)
        return self.answer()

    def _hop(self, size: str) -> Times:
        image = self._images[size]
        ring = self._rings.get(size)
        if ring is None:
            ring = self._rings[size] = RingWriter(self.directory, size.lower(), 0, SLOTS, image.nbytes)
            self._closing.callback(ring.close)
        started_ns = time.monotonic_ns()
        handle = ring.write(image)
        self.write_ns[size].append(time.monotonic_ns() - started_ns)
        self._seq += 1
        self._frames.send(_frame(handle, self._seq))
        times = self.answer()
        ring.release(handle)
        ring._free.reverse()  # go round all slots, as a full window does
        return times


def _frame(handle: m.Handle, seq: int) -> m.Frame:
    now_ns = time.monotonic_ns()
    return m.Frame(handle.camera, seq, 0, now_ns, time.time_ns(), handle, "", 0, 0, time.monotonic_ns())


@contextmanager
def receivers(directory: Path) -> Iterator[None]:
    """Run one receiving process per variant; they see their stdin close when we end."""
    command = [sys.executable, os.path.abspath(__file__), "--directory", str(directory), "--receive"]
    running = [subprocess.Popen([*command, variant], stdin=subprocess.PIPE) for variant in VARIANTS]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.communicate()


def measure(rounds: int, messages: int) -> dict[str, Any]:
    """Return the figures of `rounds` rounds with `messages` messages of each variant and size."""
    table: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm", prefix="derma-bench-")))
        sender = Sender(directory, closing)
        closing.enter_context(receivers(directory))
        for _ in VARIANTS:
            sender.answer()
        cases = [("ping", "-")] + [(v, s) for s in SIZES for v in VARIANTS if v != "ping"]
        for case in cases:
            _ = [sender.send(*case) for _ in range(2 * SLOTS)]
        for _ in range(rounds):
            for (variant, size), times in _one_round(sender, cases, messages).items():
                readable, touched = np.asarray(times).T / 1000
                table[variant, size].append(_percentiles(readable))
                if variant == "hop":
                    table["touch", size].append(_percentiles(touched))
        write_us = {size: round(statistics.median(v) / 1000, 1) for size, v in sender.write_ns.items()}
    return {
        "rounds": rounds, "messages": messages, "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1),
        "ping_us": _medians(table["ping", "-"]), "sizes": {s: _size(table, s, write_us[s]) for s in SIZES},
        "wire_us": _wire(), "promise": PROMISE,
    }  # fmt: skip


def _one_round(sender: Sender, cases: list[tuple[str, str]], messages: int) -> dict[tuple[str, str], list[Times]]:
    times: dict[tuple[str, str], list[Times]] = defaultdict(list)
    for _ in range(messages):
        for case in random.sample(cases, len(cases)):
            time.sleep(0.001)  # both sides are asleep when a message comes, as between two pictures
            times[case].append(sender.send(*case))
    return times


def _percentiles(values: Any) -> dict[str, float]:
    return {"p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99))}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {q: round(statistics.median(row[q] for row in rows), 1) for q in ("p50", "p99")}


def _size(table: dict[tuple[str, str], list[dict[str, float]]], size: str, write_us: float) -> dict[str, Any]:
    out: dict[str, Any] = {"write_us": write_us}
    for variant in ("hop", "touch", "inline"):
        rows = table[variant, size]
        pairs = list(zip(rows, table["ping", "-"], strict=True))
        ratios = [{q: row[q] / ping[q] for q in row} for row, ping in pairs]
        out[f"{variant}_us"] = _medians(rows)
        out[f"{variant}_to_ping"] = {q: round(statistics.median(r[q] for r in ratios), 2) for q in ("p50", "p99")}
    return out


def _wire() -> dict[str, float]:
    """Return µs to encode and to decode a Frame, the best of many short runs."""
    frame = _frame(m.Handle("cam0", 0, 3, 42, 1080, 1920), 1234)
    data = encode(frame)
    calls: dict[str, Callable[[], object]] = {"encode": lambda: encode(frame), "decode": lambda: decode(data)}
    return {name: round(min(repeat(call, number=200, repeat=50)) / 200 * 1e6, 1) for name, call in calls.items()}


def show(figures: dict[str, Any]) -> None:
    """Print the table for a person."""
    ping = figures["ping_us"]
    print(
        f"{figures['rounds']} rounds of {figures['messages']} messages, {figures['cores']} cores, load {figures['load']}"
    )
    print(f"one way, µs           p50      p99   ×ping p50  ×ping p99\n{'ping':<16}{ping['p50']:>9}{ping['p99']:>9}")
    for size, row in figures["sizes"].items():
        for variant in ("hop", "touch", "inline"):
            times, ratio = row[f"{variant}_us"], row[f"{variant}_to_ping"]
            print(f"{size + ' ' + variant:<16}{times['p50']:>9}{times['p99']:>9}{ratio['p50']:>12}{ratio['p99']:>11}")
        print(f"{size + ' write':<16}{row['write_us']:>9}")
    print(f"messages.Frame: encode {figures['wire_us']['encode']} µs, decode {figures['wire_us']['decode']} µs")
    for size in ("1080p", "4K"):
        ratio = figures["sizes"][size]["hop_to_ping"]["p50"]
        print(f"promise: {size} hop ≤ {PROMISE} × ping: {ratio} {'kept' if ratio <= PROMISE else 'MISSED'}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--receive", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        receive_for_ever(arguments.receive, arguments.directory)
        return
    figures = measure(arguments.rounds, arguments.messages)
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
