"""ZeroMQ, in one file: sockets on ipc paths of the run directory, one MessagePack message per ZeroMQ frame.

No high-water mark decides anything: credits bound what is under way. Every socket closes with linger 0. Sends
never block; what cannot be sent is lost like anything in a dead process, and comes again by the retry.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import zmq

from derma_common.errors import InvalidMessage, ResourceError
from derma_common.messages import Capacity, Command, Crops, Farewell, Message, Reply
from derma_common.topology import Topic, owner_name, socket_path
from derma_common.wire import MAX_BYTES, decode, encode
from derma_common.workpool import WorkPool

SILENT_AFTER_NS = 1_500_000_000  # a worker states its capacity every quarter of a second
FORGET_AFTER_NS = 30_000_000_000
RECONNECT_MS = 20
ANSWERS_AT_ONCE = 64  # requests of one turn: somebody who asks without end must not keep the owner from its work
SUBSCRIPTION_BYTES = 64  # ours have one; the handshake of a connection is counted too
_UNIX_PATH_MAX = 107


class Link:
    """An open socket of a topic."""

    def __init__(self, hub: Hub, topic: Topic, kind: int) -> None:
        self.topic = topic
        self.socket: zmq.Socket[bytes] = hub.context.socket(kind)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self.socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self.quiet = False  # the hub's poll found nothing here: do not ask again before the next one
        self.monitor: zmq.Socket[bytes] | None = None  # readable when a line that we listen to has broken
        hub.links.append(self)

    def bind(self, path: Path) -> None:
        """Bind to an ipc path. Raises ResourceError when the path is too long for a UNIX socket."""
        if len(str(path)) > _UNIX_PATH_MAX:
            raise ResourceError(f"the run directory's path is too long for a UNIX socket: {path}; set run.shm_dir")
        self.socket.bind(f"ipc://{path}")

    def connect(self, path: Path) -> None:
        """Connect to an ipc path, now or whenever its owner appears."""
        self._address = f"ipc://{path}"
        self.socket.connect(self._address)
        if self.socket.type in (zmq.SUB, zmq.DEALER):
            self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    def connect_anew(self) -> None:
        """Connect again: libzmq does so when an owner dies, but not after a message of more than MAXMSGSIZE."""
        assert self.monitor is not None
        while self.monitor.poll(0):
            self.monitor.recv_multipart()
        with contextlib.suppress(zmq.Again):  # a poll has taken a first part already: without the rest libzmq aborts
            self.next_parts(0)
        self.socket.disconnect(self._address)
        self.socket.connect(self._address)

    def send(self, message: Message) -> bool:
        """Send without blocking; False when the message could not be taken."""
        try:
            self.socket.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, limit: int = 1 << 30) -> Iterator[Message | InvalidMessage]:
        """Yield at most `limit` waiting messages, decoded; garbage comes as InvalidMessage, to be counted."""
        for _ in range(self._worth(limit)):
            try:
                parts = self.next_parts(1)
            except zmq.Again:
                return
            yield self._checked(parts)

    def next_parts(self, most: int) -> list[bytes]:
        """Return the next message's parts: of one with more than `most`, so many and one more. Raises zmq.Again.

        MAXMSGSIZE bounds each part, nothing in ZeroMQ their number: what is too much is thrown away unread.
        """
        parts = [self.socket.recv(zmq.NOBLOCK)]
        while self.socket.getsockopt(zmq.RCVMORE):
            part = self.socket.recv(zmq.NOBLOCK, copy=False)  # all parts of a message are there at once
            if len(parts) <= most:
                parts.append(part.bytes)
        return parts

    def _worth(self, limit: int) -> int:
        """Return how often to ask for a message: not at all once after a poll that found none."""
        quiet, self.quiet = self.quiet, False
        return 0 if quiet else limit

    def _checked(self, parts: list[bytes]) -> Message | InvalidMessage:
        if len(parts) != 1:
            return InvalidMessage(f"{self.topic.name}: a message in parts")
        try:
            message = decode(parts[0])
        except InvalidMessage as error:
            return error
        if not isinstance(message, self.topic.carries):
            return InvalidMessage(f"{self.topic.name} carries no {type(message).__name__}")
        return message


class WorkServer(Link):
    """The owner's end of `work`: queues crops and sends them to the workers that have room."""

    def __init__(self, hub: Hub, topic: Topic, owner: str) -> None:
        super().__init__(hub, topic, zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.pool = WorkPool(owner, SILENT_AFTER_NS)

    def send(self, message: Message) -> bool:
        """Queue crops and hand out what can be handed out."""
        if not isinstance(message, Crops):
            raise TypeError(f"work carries crops, not {type(message).__name__}")
        self.pool.put(replace(message, owner=self.pool.owner))
        self.hand_out()
        return True

    def receive(self, limit: int = 1 << 30) -> Iterator[Message | InvalidMessage]:
        """Take the workers' statements and hand out work; yields only garbage, to be counted."""
        for _ in range(self._worth(limit)):
            try:
                identity, *parts = self.next_parts(2)
            except zmq.Again:
                break
            message = self._checked(parts)
            if isinstance(message, Capacity):
                self.pool.heard(identity, message, time.monotonic_ns())
                if message.room == 0:
                    self._say_farewell(identity)
            else:
                yield (message if isinstance(message, InvalidMessage) else InvalidMessage("work: crops from a worker"))
        self.hand_out()

    def _say_farewell(self, identity: bytes) -> None:
        farewell = encode(Farewell(self.pool.owner, self.pool.sent_to(identity)))
        with contextlib.suppress(zmq.ZMQError):  # gone already: nobody waits for it
            self.socket.send_multipart([identity, farewell], zmq.NOBLOCK)

    def hand_out(self) -> None:
        """Send work as long as somebody has room."""
        now_ns = time.monotonic_ns()
        self.pool.forget_silent(now_ns, FORGET_AFTER_NS)
        while (chosen := self.pool.take(now_ns)) is not None:
            identity, work = chosen
            try:
                self.socket.send_multipart([identity, encode(work)], zmq.NOBLOCK)
            except zmq.ZMQError:  # no such peer any more, or its pipe is full: it is no worker now
                self.pool.gone(identity)
                self.pool.put_back(work)


class Hub:
    """The sockets of one process and the poll over them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.links: list[Link] = []
        self._files: list[int] = []
        self._poller: zmq.Poller | None = None
        self._polled: dict[zmq.Socket[bytes], Link] = {}

    def pull(self, topic: Topic, instance: str = "") -> Link:
        """Own a pipeline: everybody's messages arrive here."""
        return self._bound(Link(self, topic, zmq.PULL), instance)

    def push(self, topic: Topic, instance: str = "") -> Link:
        """Send into a pipeline."""
        return self._connected(Link(self, topic, zmq.PUSH), instance)

    def publish(self, topic: Topic) -> Link:
        """Own a broadcast."""
        link = Link(self, topic, zmq.PUB)
        link.socket.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES)  # all that arrives, and it is kept
        return self._bound(link, "")

    def subscribe(self, topic: Topic) -> Link:
        """Listen to a broadcast."""
        link = Link(self, topic, zmq.SUB)
        link.socket.subscribe(b"")
        return self._connected(link, "")

    def serve_work(self, topic: Topic, instance: str, incarnation: int) -> WorkServer:
        """Own a work topic."""
        link = WorkServer(self, topic, owner_name(instance, incarnation))
        self._bound(link, instance)
        return link

    def ask_work(self, topic: Topic, instance: str) -> Link:
        """Connect to a work topic as a worker."""
        return self._connected(Link(self, topic, zmq.DEALER), instance)

    def serve_requests(self, topic: Topic) -> Link:
        """Own a request topic."""
        return self._bound(Link(self, topic, zmq.ROUTER), "")

    def watch(self, descriptor: int) -> None:
        """Let `wait` also return when a file descriptor is readable or closed."""
        self._files.append(descriptor)
        self._poller = None

    def wait(self, timeout_s: float) -> set[int]:
        """Wait for messages; return the watched descriptors that fired."""
        if self._poller is None:
            self._poller = zmq.Poller()
            self._polled = {link.socket: link for link in self.links if link.socket.type not in (zmq.PUB, zmq.PUSH)}
            for socket in self._polled:
                self._poller.register(socket, zmq.POLLIN)
                if self._polled[socket].monitor:
                    self._poller.register(self._polled[socket].monitor, zmq.POLLIN)
            for descriptor in self._files:
                self._poller.register(descriptor, zmq.POLLIN)
        fired = {item for item, _ in self._poller.poll(max(0, round(timeout_s * 1000)))}
        for socket, link in self._polled.items():
            link.quiet = socket not in fired
            if link.monitor in fired:
                link.connect_anew()
        return {item for item in fired if isinstance(item, int)}

    def _bound(self, link: Link, instance: str) -> Link:
        link.bind(socket_path(self.directory, link.topic, instance))
        self._poller = None
        return link

    def _connected(self, link: Link, instance: str) -> Link:
        link.connect(socket_path(self.directory, link.topic, instance))
        self._poller = None
        return link

    def close(self) -> None:
        """Close every socket at once; nothing lingers."""
        self.context.destroy(linger=0)


def answer(link: Link, respond: Callable[[Command], Reply]) -> None:
    """Answer some of the requests that wait on a served request topic; garbage gets an error as its answer."""
    for _ in range(ANSWERS_AT_ONCE):
        try:
            identity, *parts = link.next_parts(3)  # identity, an empty part, the request
        except zmq.Again:
            return
        message = link._checked(parts[-1:] if len(parts) <= 2 else parts)
        reply = respond(message) if isinstance(message, Command) else Reply(error=str(message)[:200])
        envelope = parts[:-1][:1]  # REQ sockets want their empty part back
        link.socket.send_multipart([identity, *envelope, encode(reply)], zmq.NOBLOCK)


def request(directory: Path, topic: Topic, command: Command, timeout_s: float = 5.0) -> Reply | None:
    """Ask the owner of a request topic; None when nobody answered in time."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        socket.connect(f"ipc://{socket_path(directory, topic)}")
        socket.send(encode(command))
        if not socket.poll(round(timeout_s * 1000)):
            return None
        try:
            reply = decode(socket.recv())
        except InvalidMessage:  # whoever sends that does not answer for the owner
            return None
        return reply if isinstance(reply, Reply) else None
