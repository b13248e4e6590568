"""Redis Streams, in one file: the keys, the connection, and the few things that derma does with a stream.

Entries hold one field. Ids that a site gives make sending again harmless: Redis refuses an id that is not above the
stream's last one. Groups are trimmed only below what every group has acknowledged, because trimming what was not
delivered breaks Redis' own `lag`, and autoscaling with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import redis

FIELD = b"e"
PREFIX = "derma"
SITES = f"{PREFIX}:sites"
DEAD = f"{PREFIX}:dead"
CLASSIFIERS = "classifiers"  # the group of a jobs stream
MAX_DEAD = 1_000  # dead letters kept, and
MAX_LETTER_BYTES = 256 << 10  # so much of each: who sends garbage must not fill the memory with it
MAX_ANSWERS = 10_000  # answers kept for a site that does not fetch them
LOOK_BEYOND = 64  # unanswered entries among which the least often given are chosen
_TRANSIENT = ("LOADING", "BUSY", "READONLY", "OOM", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS")
_DENIED = ("NOPERM", "NOAUTH", "WRONGPASS", "DENIED")


def findings_key(site: str, priority: int) -> str:
    """Return the stream of a site's findings of one priority (0 first)."""
    return f"{PREFIX}:findings:{site}:{priority}"


def pictures_key(site: str, priority: int) -> str:
    """Return the stream of a site's lesion pictures of one priority."""
    return f"{PREFIX}:pictures:{site}:{priority}"


def opinions_key(site: str) -> str:
    """Return the stream of second opinions for a site."""
    return f"{PREFIX}:opinions:{site}"


def jobs_key(sha256: str) -> str:
    """Return the stream of crops for the workers of one model, named by its file's sha256."""
    return f"{PREFIX}:jobs:{sha256[:12]}"


def results_key(site: str) -> str:
    """Return the stream of a site's classified crops."""
    return f"{PREFIX}:results:{site}"


class LineDown(Exception):
    """Redis cannot be reached or cannot serve now; later it may."""


class Denied(LineDown):
    """Redis answers, but not to us: password, certificate, or a right that the user lacks."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where Redis is and who we are there. Nothing secret is in the address."""

    address: str  # rediss://host:port/db; redis:// on the loopback; unix:///path
    user: str = ""
    password: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    timeout_s: float = 5.0

    def __repr__(self) -> str:
        return f"Access({self.address!r}, user={self.user!r})"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An entry as it came."""

    key: str
    id: str
    data: bytes
    times: int = 1  # how often it was delivered to some worker

    @property
    def at_ms(self) -> int:
        """When it reached Redis, by Redis' clock; of entries with ids that Redis gave."""
        return int(self.id.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a group has before it: never delivered, and delivered but not acknowledged."""

    waiting: int
    pending: int


class Line:
    """A connection to Redis. Every method raises LineDown or Denied; the next call connects again."""

    def __init__(self, access: Access) -> None:
        # not before it is needed: redis-py brings OpenTelemetry along where that is installed
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        options: dict[str, Any] = {
            "socket_timeout": access.timeout_s, "retry": Retry(NoBackoff(), 0), "protocol": 2,
            "username": access.user or None, "password": access.password or None,
        }  # fmt: skip
        if not access.address.startswith("unix:"):
            options |= {"socket_connect_timeout": access.timeout_s, "socket_keepalive": True}
        if access.address.startswith("rediss:"):
            options |= {
                "ssl_ca_certs": access.ca_file or None, "ssl_certfile": access.cert_file or None,
                "ssl_keyfile": access.key_file or None, "ssl_cert_reqs": "required", "ssl_check_hostname": True,
            }  # fmt: skip
        self.timeout_s = access.timeout_s
        self._redis: redis.Redis = redis.Redis.from_url(access.address, **options)

    def _do(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        import redis

        try:
            return call(*arguments, **named)
        except redis.RedisError as error:
            raise _failure(error) from error
        except OSError as error:  # a certificate that is no file, or not a good one
            raise Denied(f"{type(error).__name__}: {error}") from error

    def _all(self, pipeline: Any) -> list[Any]:
        """Send a pipeline; what concerns one of its commands alone is in that one's place."""
        import redis

        answers: list[Any] = self._do(pipeline.execute, raise_on_error=False)
        for answer in answers:
            if isinstance(answer, redis.RedisError) and not _of_this_command(answer):
                raise _failure(answer) from answer
        return answers

    # -- sending ---------------------------------------------------------------------------------------------

    def register(self, site: str) -> None:
        """Make a site known to those who serve all sites."""
        self._do(self._redis.sadd, SITES, site)

    def owner(self, site: str, claimant: str) -> str:
        """Return who a site's name belongs to; the claimant, when it was nobody's."""
        key = f"{PREFIX}:owner:{site}"
        self._do(self._redis.set, key, claimant, nx=True)
        return str((self._do(self._redis.get, key) or b"").decode(errors="replace"))

    def take_site(self, site: str, claimant: str) -> None:
        """Make a site's name the claimant's, whoever had it."""
        self._do(self._redis.set, f"{PREFIX}:owner:{site}", claimant)

    def sites(self) -> list[str]:
        """Return the known sites."""
        return sorted(name.decode("utf-8", "replace") for name in self._do(self._redis.smembers, SITES))

    def send(self, entries: Sequence[tuple[str, str, bytes]], new_streams: bool = True) -> list[str]:
        """Append (key, id, data), id `*` for Redis' own. Returns for each "" or why this one alone was refused.

        Without `new_streams` only streams that somebody reads, or did, are appended to.

        An id at or below the stream's last one counts as sent: it was, before an answer got lost.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for key, entry_id, data in entries:
            pipeline.xadd(key, {FIELD: data}, id=entry_id, nomkstream=not new_streams)
        return [_refusal(answer) for answer in self._all(pipeline)]

    def last_id(self, key: str) -> str:
        """Return the id of the last entry that a stream ever had; 0-0 when there is no stream."""
        try:
            facts = self._do(self._redis.xinfo_stream, key)
        except LineDown as error:
            if "no such key" in str(error) or "WRONGTYPE" in str(error):  # sending to it will tell more
                return "0-0"
            raise
        return str(facts["last-generated-id"].decode())

    # -- reading without a group -------------------------------------------------------------------------------

    def read(self, after: Mapping[str, str], count: int, wait_s: float) -> list[Delivery]:
        """Return entries after an id in each stream, waiting up to `wait_s` for the first."""
        return _deliveries(self._do(self._redis.xread, dict(after), count=count, block=self._block_ms(wait_s)))

    def forget(self, key: str, before: str) -> None:
        """Remove entries below an id from a stream without groups; Redis may keep some of them for a while."""
        self._do(self._redis.xtrim, key, minid=before, approximate=True)

    # -- groups ----------------------------------------------------------------------------------------------

    def join(self, key: str, group: str) -> None:
        """Make a group that reads a stream from its beginning, and the stream; both may be there already."""
        try:
            self._do(self._redis.xgroup_create, key, group, id="0", mkstream=True)
        except LineDown as error:
            if "BUSYGROUP" not in str(error):
                raise

    def take(self, group: str, worker: str, keys: Sequence[str], count: int, wait_s: float) -> list[Delivery]:
        """Take entries that nobody was given yet."""
        streams = dict.fromkeys(keys, ">")
        block = self._block_ms(wait_s)
        return _deliveries(self._do(self._redis.xreadgroup, group, worker, streams, count=count, block=block))

    def take_over(self, group: str, worker: str, key: str, idle_s: float, count: int) -> list[Delivery]:
        """Take entries that a worker was given and has not answered for `idle_s`, with how often they were given.

        The least often given ones come first: one that kills its workers must not hold up the others.
        """
        idle_ms = round(idle_s * 1000)
        rows = self._do(self._redis.xpending_range, key, group, "-", "+", count + LOOK_BEYOND, idle=idle_ms)
        rows.sort(key=lambda row: int(row["times_delivered"]))
        times = {row["message_id"]: int(row["times_delivered"]) for row in rows[:count]}
        if not times:
            return []
        claimed = self._do(self._redis.xclaim, key, group, worker, idle_ms, list(times))
        return [replace(d, times=times[d.id.encode()] + 1) for d in _deliveries([(key.encode(), claimed)])]

    def answer(self, group: str, done: Sequence[Delivery], answers: Sequence[tuple[str, bytes]]) -> None:
        """Append the answers and acknowledge what they answer, both or neither."""
        pipeline = self._redis.pipeline(transaction=True)
        for key, data in answers:
            pipeline.xadd(key, {FIELD: data}, maxlen=MAX_ANSWERS, approximate=True)
        for delivery in done:
            pipeline.xack(delivery.key, group, delivery.id)
        self._all(pipeline)

    def bury(self, group: str, dead: Delivery, reason: str) -> None:
        """Move an entry that nobody can work on to the dead letters; `group` is "" for a reader without one."""
        data = dead.data[:MAX_LETTER_BYTES]
        letter: dict[Any, Any] = {FIELD: data, b"key": dead.key, b"id": dead.id, b"reason": reason[:200]}
        pipeline = self._redis.pipeline(transaction=bool(group))
        pipeline.xadd(DEAD, letter, maxlen=MAX_DEAD, approximate=True)
        if group:
            pipeline.xack(dead.key, group, dead.id)
        self._all(pipeline)

    def backlog(self, key: str, group: str) -> Backlog:
        """Return what waits for a group; the whole stream, when it has not joined yet or Redis has lost count."""
        for facts in self._groups(key):
            if facts["name"] == group.encode():
                lag = facts.get("lag")
                waiting = int(self._do(self._redis.xlen, key)) if lag is None else int(lag)
                return Backlog(waiting, int(facts["pending"]))
        return Backlog(int(self._do(self._redis.xlen, key)), 0)

    def _groups(self, key: str) -> list[dict[str, Any]]:
        try:
            return list(self._do(self._redis.xinfo_groups, key))
        except LineDown as error:
            if "no such key" in str(error):
                return []
            raise

    def trim(self, key: str) -> None:
        """Remove what every group of a stream has acknowledged, and nothing else."""
        lowest: list[tuple[int, int]] = []
        for facts in self._groups(key):
            pending = self._do(self._redis.xpending, key, facts["name"])
            # the last delivered entry itself stays: Redis counts its lag from there
            first = pending["min"] if pending["pending"] else facts["last-delivered-id"]
            lowest.append(order(first.decode()))
        if lowest:
            minimum = "-".join(str(part) for part in min(lowest))
            self._do(self._redis.xtrim, key, minid=minimum, approximate=False)

    def leave(self, key: str, group: str, worker: str) -> None:
        """Take a worker's name off a group's list, unless entries are still in its hands."""
        if not self._do(self._redis.xpending_range, key, group, "-", "+", 1, consumername=worker):
            self._do(self._redis.xgroup_delconsumer, key, group, worker)

    def now_ms(self) -> int:
        """Return the time of Redis' clock, ms since 1970."""
        seconds, micros = self._do(self._redis.time)
        return int(seconds) * 1000 + int(micros) // 1000

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def _block_ms(self, wait_s: float) -> int | None:
        # half of the socket's patience: waiting must not look like a dead line
        return max(1, round(min(wait_s, self.timeout_s / 2) * 1000)) if wait_s > 0 else None


def _failure(error: redis.RedisError) -> LineDown:
    import redis

    text = f"{type(error).__name__}: {error}"[:200]
    refused = isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError)
    return Denied(text) if refused or str(error).startswith(_DENIED) or "ssl" in text.lower() else LineDown(text)


def _of_this_command(error: redis.RedisError) -> bool:
    """Whether an error says something of one command, not of the server or of our rights."""
    import redis

    return type(error) in (redis.ResponseError, redis.DataError) and not str(error).startswith((*_DENIED, *_TRANSIENT))


def _refusal(answer: Any) -> str:
    if answer is None:
        return "nobody has ever read this stream"
    return "" if isinstance(answer, bytes) or "equal or smaller" in str(answer) else str(answer)


def _deliveries(answer: Any) -> list[Delivery]:
    found = []
    for key, rows in answer or ():
        for entry_id, fields in rows:
            # an entry without the field, or one that was removed meanwhile, is an invalid one when it is unpacked
            found.append(Delivery(key.decode(), entry_id.decode(), (fields or {}).get(FIELD, b"")))
    return found


def order(entry_id: str) -> tuple[int, int]:
    """Return the two numbers of an id, in the order in which Redis compares ids."""
    time_ms, _, number = entry_id.partition("-")
    return int(time_ms), int(number or 0)
