"""Mutated messages into every socket of a real run: nobody dies, nothing grows, every picture is accounted for.

    DERMA_MUTATIONS=1000000 pytest -s tests/integration/test_mutated_messages.py

Sockets that processes own are written to. To those that only listen (captures to acknowledgements and roster, a
classifier to its work) messages come from a relay that takes the owner's place, passes on what is true and adds to it.
Good messages are among the bad ones. They name cameras that there are not and `two`, of which then nothing can be
said but that it is accounted for; of `one` every picture must be there, once.
"""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from support.builders import classifications, crops, detections, frame
from support.mutations import Mutations
from support.place import Place
from support.runs import PATIENCE_S, Run, query, up

from derma_common.messages import (
    Ack,
    Ask,
    Capacity,
    Close,
    Command,
    Farewell,
    Message,
    Reply,
    Roster,
    ServiceState,
    Suspect,
    Torn,
)  # fmt: skip
from derma_common.telemetry import samples
from derma_common.topology import ACKS, CONTROL, FINDINGS, FRAMES, RESULTS, ROSTER, WORK, Topic, socket_path
from derma_common.transport import request
from derma_common.wire import encode

TOTAL = int(os.environ.get("DERMA_MUTATIONS", "100000"))
AT_ONCE = 50
SUBSCRIPTIONS = 10 * AT_ONCE  # of one connection
LONGEST_SUBSCRIPTION = 4096  # bytes
MOST_GROWTH_KB = 64_000
DETECTOR = "detector.0"
SOURCE = "synthetic://?frames=100000&width=320&height=240&seed={}"

OF_FRAMES = [frame(3, camera=camera) for camera in ("ghost", "two")]
RESULTS_OF = [
    message
    for of in OF_FRAMES
    for message in (detections(of, 2), classifications(of, 2), Close(of.camera, ((3, 4),), "busy"), Ask(of.camera),
                    Torn(of.camera, 3, 0, "detector"))
]  # fmt: skip
WORK_OF = [Capacity("classifier.9", 0, {f"{DETECTOR}/0": 1}), Farewell(f"{DETECTOR}/0", 1), crops(OF_FRAMES[0], 2)]
BROADCAST = [
    Ack("ghost", ((0, 9),), 9, {"busy": 1}, ((3, 0),)),
    Roster(("sink.0",), {"ghost.0": 1}, 1, (Suspect("two", 3, 1),)),
]
ASKED = [Command("ps"), Command("nonsense", "of any kind"), Reply(text="no command")]
EVERYTHING: list[Message] = [*OF_FRAMES, *RESULTS_OF, *WORK_OF, *BROADCAST, *ASKED]


class Target:
    """A socket that gets its share of messages, as fast as it takes them."""

    def __init__(self, name: str, socket: zmq.Socket[bytes], good: list[Message], head: tuple[bytes, ...] = ()) -> None:
        """`good` are the messages of this socket, which come as often as all others together."""
        self.name, self.socket, self.head = name, socket, head
        self.sent = 0
        own = good * (1 + len(EVERYTHING) // len(good))
        spoilt = Mutations([encode(message) for message in (*own, *EVERYTHING)], seed=len(name))
        self._drawn: Iterator[list[bytes]] = iter(spoilt)
        self._next = next(self._drawn)

    def turn(self) -> bool:
        """Send some messages; False when the socket takes no more just now."""
        for _ in range(AT_ONCE):
            try:
                self.socket.send_multipart([*self.head, *self._next], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):  # the worker cut the line, and comes back
                    raise
                return False
            self.sent += 1
            self._next = next(self._drawn)
        return True

    def drain(self) -> None:
        """Throw away what is answered."""
        with suppress(zmq.Again):
            while True:
                self.socket.recv_multipart(zmq.NOBLOCK)


class Subscriber(Target):
    """Subscribes to a broadcast, to things that nobody publishes; now and then from a new connection."""

    def __init__(self, name: str, connect: Callable[[], zmq.Socket[bytes]]) -> None:
        super().__init__(name, connect(), EVERYTHING)
        self._connect = connect
        # every second one begins as a subscription does; libzmq takes our own down by recursion, a step a byte
        shortened = ([part[:LONGEST_SUBSCRIPTION] for part in parts] for parts in self._drawn)
        self._drawn = ([b"\1" + parts[0]] if i % 2 else parts for i, parts in enumerate(shortened))
        self._next = next(self._drawn)

    def turn(self) -> bool:
        """Send some subscriptions."""
        if self.sent % SUBSCRIPTIONS == 0:
            self.socket.close()
            self.socket = self._connect()
        return super().turn()


class Attack:
    """All targets of one run, and the relays that stand between its processes."""

    def __init__(self, run: Run, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._run, self._context = run, context
        self.run_dir = next(run.shm_dir.rglob("lock")).parent
        self._relays: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]] = []
        self._worker: Target | None = None  # the classifier, at our relay
        self._work: list[bytes] = []  # for it, that it could not take yet
        self.targets: list[Target] = []

    def take_places(self) -> None:
        """Stand between owners and who connects from now on, and connect to everything."""
        true = {topic.name: self._moved(topic, DETECTOR if topic is WORK else "") for topic in (ACKS, ROSTER, WORK)}
        for topic in (ACKS, ROSTER):
            listen, speak = self._socket(zmq.SUB), self._socket(zmq.PUB)
            listen.subscribe(b"")
            speak.setsockopt(zmq.XPUB_NODROP, 1)
            listen.connect(true[topic.name])
            speak.bind(f"ipc://{socket_path(self.run_dir, topic)}")
            self._relays.append((listen, speak))
            self.targets.append(Target(f"{topic.name} to captures", speak, BROADCAST))
        self._true_work = true[WORK.name]
        self._to_detector, self._to_worker = self._connected(zmq.DEALER, self._true_work), self._socket(zmq.ROUTER)
        self._to_worker.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._to_worker.bind(f"ipc://{socket_path(self.run_dir, WORK, DETECTOR)}")
        frames = f"ipc://{socket_path(self.run_dir, FRAMES, DETECTOR)}"
        for name, kind, address, good, head in (
            ("frames", zmq.PUSH, frames, list[Message](OF_FRAMES), ()),
            ("results", zmq.PUSH, f"ipc://{socket_path(self.run_dir, RESULTS)}", RESULTS_OF, ()),
            ("work", zmq.DEALER, true[WORK.name], WORK_OF, ()),
            ("control", zmq.DEALER, f"ipc://{socket_path(self.run_dir, CONTROL)}", ASKED, (b"",)),
        ):
            self.targets.append(Target(name, self._connected(kind, address), good, head))
        for address in (true[ACKS.name], true[ROSTER.name], f"ipc://{socket_path(self.run_dir, FINDINGS)}"):
            self.targets.append(Subscriber("subscriptions", lambda a=address: self._connected(zmq.XSUB, a)))

    def _moved(self, topic: Topic, instance: str) -> str:
        path = socket_path(self.run_dir, topic, instance)
        away = path.with_suffix(".true")
        path.rename(away)  # whoever is connected stays so; we may bind the path
        return f"ipc://{away}"

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        return socket

    def _connected(self, kind: int, address: str) -> zmq.Socket[bytes]:
        socket = self._socket(kind)
        socket.setsockopt(zmq.RECONNECT_IVL, 1)  # what is too large costs the connection
        socket.connect(address)
        return socket

    def pass_on(self) -> None:
        """Let what is true through the relays."""
        for listen, speak in self._relays:
            with suppress(zmq.Again):
                while True:
                    speak.send(listen.recv(zmq.NOBLOCK), zmq.NOBLOCK)
        with suppress(zmq.Again):
            while True:
                identity, body = self._to_worker.recv_multipart(zmq.NOBLOCK)
                if self._worker is None:
                    self._worker = Target("work to a classifier", self._to_worker, WORK_OF)
                    self.targets.append(self._worker)
                if self._worker.head != (identity,):  # its first connection, or the next one after it cut one
                    self._worker.head, self._work = (identity,), []
                    self._to_detector.close()
                    self._to_detector = self._connected(zmq.DEALER, self._true_work)
                self._to_detector.send(body)
        with suppress(zmq.ZMQError):  # none is there, or the classifier takes none just now
            while self._worker:
                self._work = self._work or [self._to_detector.recv(zmq.NOBLOCK)]
                self._to_worker.send_multipart([*self._worker.head, *self._work], zmq.NOBLOCK)
                self._work = []

    def send(self, each: int) -> float:
        """Send `each` messages to every target; return how long that took, s."""
        started = time.monotonic()
        while left := [target for target in self.targets if target.sent < each]:
            assert time.monotonic() - started < PATIENCE_S + 0.003 * TOTAL, [(t.name, t.sent) for t in left]
            if not [target for target in left if target.turn()]:
                assert self._run.process.poll() is None, self._run.said()
                time.sleep(0.001)
            for target in self.targets:
                if target.socket.type == zmq.DEALER:
                    target.drain()
            self.pass_on()
        return time.monotonic() - started

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Pass on what is true until the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            self.pass_on()
            time.sleep(0.005)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


def services(run_dir: Path) -> dict[str, ServiceState]:
    """Return what `derma ps` shows."""
    reply = request(run_dir, CONTROL, Command("ps"))
    return {service.instance: service for service in reply.services} if reply else {}


def resident_kb(pid: int) -> int:
    """Return the memory of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0])


def refused(service: ServiceState) -> float:
    """Return how many messages a process counted as invalid."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{service.metrics_port}/metrics", timeout=30).read().decode()
    return sum(s.value for s in samples(text) if s.name == "derma_invalid_messages_total")


@pytest.mark.slow
def test_every_socket_withstands_mutated_messages(place: Place, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    sources = [f"{name}={SOURCE.format(i)}" for i, name in enumerate(("one", "two"))]
    # a detector takes one frame at a turn, from each sender in turn: with one of ours under way it takes more of them
    options = ["--classifiers", "1", "--set", "capture.retry_after_s=2", "--set", "capture.window=1"]
    with up(*sources, *options, *place.models, **place.dirs) as run:
        attacked = run.wait_ready("sink.0", "capture.one", "capture.two", "classifier.0", DETECTOR)
        attack = Attack(run, context)
        run_dir = attack.run_dir
        attack.take_places()
        listeners = ("capture.one", "capture.two", "classifier.0")
        for name in listeners:  # their successors connect to us
            os.kill(attacked[name]["pid"], signal.SIGKILL)
        before: dict[str, ServiceState] = {}

        def are_back() -> bool:
            before.update(services(run_dir))
            return all(before[n].state == "ready" and before[n].restarts == 1 for n in listeners)

        attack.wait_for(are_back, "the listeners to be back")
        attack.wait_for(_delivered_more(place, 20), "work to go on")
        pids = {"supervisor": run.process.pid} | {name: service.pid for name, service in before.items()}
        sizes = {name: resident_kb(pid) for name, pid in pids.items()}
        took_s = attack.send(TOTAL // len(attack.targets))
        attack.wait_for(_delivered_more(place, 20), "work to go on after it")
        after = services(run_dir)
        grown = {name: resident_kb(pid) - sizes[name] for name, pid in pids.items()}
        counted = {name: refused(service) for name, service in after.items()}
        run.process.send_signal(signal.SIGINT)
        attack.wait_for(lambda: run.process.poll() is not None, "the end")
        summary = run.finish()
    sent = {target.name: target.sent for target in attack.targets}
    print(json.dumps({"sent": sum(t.sent for t in attack.targets), "per_s": round(sum(sent.values()) / took_s),
                      "refused": counted, "resident_kb": sizes, "grown_kb": grown, "summary": summary}))  # fmt: skip
    assert {name: service.restarts for name, service in after.items()} == {
        name: int(name in listeners) for name in after
    }, "nobody died of it"
    assert all(counted[name] > sent[to] / 4 for name, to in (
        ("sink.0", "results"), (DETECTOR, "frames"), ("classifier.0", "work to a classifier"),
        ("capture.one", "acks to captures"),
    )), "it did arrive"  # fmt: skip
    assert {name: kb for name, kb in grown.items() if kb > MOST_GROWTH_KB} == {}
    logs = sum(f.stat().st_size for f in (place.data_dir / "logs").iterdir())
    assert logs < 2_000_000
    assert summary["captured"] == summary["delivered"] + sum(summary["dropped"].values())
    assert (summary["in_flight"], summary["shm_bytes_left"]) == (0, 0)
    rows = query(place.data_dir, "SELECT seq, outcome FROM frames WHERE camera = 'one' ORDER BY seq")
    assert rows == [(seq, "delivered") for seq in range(len(rows))], "of `one` every picture, once"
    found = query(place.data_dir, "SELECT count(*) FROM findings WHERE camera = 'one'")[0][0]
    assert found == 2 * len(rows) >= 40


def _delivered_more(place: Place, frames: int) -> Callable[[], bool]:
    """Return whether so many more pictures of `one` were delivered than now."""
    asked = "SELECT count(*) FROM frames WHERE camera = 'one' AND outcome = 'delivered'"
    before = query(place.data_dir, asked)[0][0]
    return lambda: query(place.data_dir, asked)[0][0] >= before + frames
