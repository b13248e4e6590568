"""The loop of all workers against a real Redis: sharing, taking over, dead letters, trimming."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import pytest
import redis
from support.metrics import values
from support.redis_server import RedisServer

from derma_common.cloud.streams import DEAD, FIELD, Backlog, Delivery, Line, LineDown
from derma_common.errors import InvalidMessage, ResourceError
from derma_common.stage import Stop
from derma_common.workers.consumer import MAX_DELIVERIES, Consumer, Taken, Terms
from derma_common.workers.metrics import WorkerMetrics

KEY, GROUP, ANSWERS = "derma:jobs:test", "workers", "derma:results:room1"
IDLE_S = 0.05


class Echo:
    """Work that answers with what it was given, and notes it."""

    def __init__(self, ranks: list[list[str]] | None = None) -> None:
        self.ranks = ranks or [[KEY]]
        self.batches: list[list[bytes]] = []
        self.fails = 0

    def keys(self, line: Line) -> list[list[str]]:
        return self.ranks

    def open(self, delivery: Delivery) -> bytes:
        if not delivery.data.startswith(b"good"):
            raise InvalidMessage("not good")
        return delivery.data

    def answer(self, line: Line, taken: Sequence[Taken[bytes]]) -> list[tuple[str, bytes]]:
        self.batches.append([data for _, data in taken])
        if self.fails:
            self.fails -= 1
            raise LineDown("as if the line dropped before the answer")
        return [(ANSWERS, data) for _, data in taken]


Made = tuple[Consumer[bytes], Echo, WorkerMetrics]
Make = Callable[..., Made]


@pytest.fixture
def make(server: RedisServer) -> Iterator[Make]:
    """Make a worker with a line of its own."""
    lines = []

    def worker(name: str = "w1", count: int = 4, echo: Echo | None = None, idle_s: float = IDLE_S) -> Made:
        lines.append(Line(server.access()))
        echo, metrics = echo or Echo(), WorkerMetrics("job")
        return Consumer(lines[-1], name, echo, Terms(GROUP, count, idle_s), metrics), echo, metrics

    yield worker
    for line in lines:
        line.close()


def send(line: Line, *entries: bytes, key: str = KEY) -> None:
    assert line.send([(key, "*", data) for data in entries]) == [""] * len(entries)


def answers(line: Line) -> list[bytes]:
    return [d.data for d in line.read({ANSWERS: "0-0"}, 1000, 0)]


def letters(bare: redis.Redis) -> list[dict[bytes, bytes]]:
    return [fields for _, fields in bare.xrange(DEAD)]


def test_entries_are_answered_in_batches_and_acknowledged(make: Make, line: Line) -> None:
    consumer, echo, _ = make(count=3)
    send(line, b"good 1", b"good 2", b"good 3", b"good 4")
    assert consumer.step(0) == 3
    assert consumer.step(0) == 1
    assert echo.batches == [[b"good 1", b"good 2", b"good 3"], [b"good 4"]]
    assert answers(line) == [b"good 1", b"good 2", b"good 3", b"good 4"]
    backlog = line.backlog(KEY, GROUP)
    assert (backlog.waiting, backlog.pending) == (0, 0)


def test_what_cannot_be_opened_becomes_a_dead_letter_and_the_rest_of_its_batch_is_answered(
    make: Make, line: Line, bare: redis.Redis
) -> None:
    consumer, _, metrics = make()
    send(line, b"good 1", b"bad", b"good 2")
    bare.xadd(KEY, {b"other": b"field"})
    consumer.step(0)
    assert answers(line) == [b"good 1", b"good 2"]
    assert [(x[FIELD], x[b"key"], x[b"reason"]) for x in letters(bare)] == [
        (b"bad", KEY.encode(), b"not good"), (b"", KEY.encode(), b"not good"),
    ]  # fmt: skip
    assert values(metrics, "derma_entries_total")["job", "invalid"] == 2
    assert line.backlog(KEY, GROUP).pending == 0


def test_a_flood_of_garbage_is_counted_and_not_logged_line_by_line(
    make: Make, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    consumer, _, metrics = make(count=100)
    send(line, *(b"bad %d" % i for i in range(200)))
    with caplog.at_level("WARNING"):
        consumer.step(0)
        consumer.step(0)
    assert values(metrics, "derma_entries_total")["job", "invalid"] == 200
    assert 1 <= len([r for r in caplog.records if "dead letter" in r.getMessage()]) < 20


def test_an_entry_of_a_dead_worker_is_taken_over_after_its_idle_time_and_not_before(
    make: Make, line: Line, until: Callable[..., None]
) -> None:
    line.join(KEY, GROUP)
    send(line, b"good 1", b"good 2")
    assert len(line.take(GROUP, "dead", [KEY], 10, 0)) == 2
    consumer, echo, metrics = make()
    assert line.take_over(GROUP, "early", KEY, 60.0, 10) == []
    until(lambda: len(answers(line)) == 2, lambda: consumer.step(0))
    assert echo.batches == [[b"good 1"], [b"good 2"]], "one at a time: one of them may have killed the other worker"
    assert values(metrics, "derma_entries_taken_over_total") == {("job",): 2}


def test_an_entry_that_is_never_answered_is_buried_after_five_deliveries_and_no_innocent_with_it(
    make: Make, line: Line, bare: redis.Redis, until: Callable[..., None]
) -> None:
    line.join(KEY, GROUP)
    send(line, b"good poison", b"good 1", b"good 2")
    line.take(GROUP, "dead", [KEY], 10, 0)
    tried = [1]

    class Killed(Echo):
        def answer(self, line: Line, taken: Sequence[Taken[bytes]]) -> list[tuple[str, bytes]]:
            if b"good poison" in [data for _, data in taken]:
                tried[0] += 1
                raise RuntimeError("dead")
            return super().answer(line, taken)

    workers = iter(range(100))

    def turn() -> None:
        consumer, *_ = make(f"w{next(workers)}", echo=Killed())
        with contextlib.suppress(RuntimeError):  # as if the process had died
            consumer.step(0.02)

    until(lambda: len(letters(bare)) == 1, turn)
    assert tried[0] == MAX_DELIVERIES
    assert sorted(answers(line)) == [b"good 1", b"good 2"]
    assert letters(bare)[0][FIELD] == b"good poison"
    assert b"delivered 6 times" in letters(bare)[0][b"reason"]
    assert line.backlog(KEY, GROUP).pending == 0


def test_what_was_worked_on_while_the_line_dropped_is_worked_on_again(
    make: Make, line: Line, until: Callable[..., None]
) -> None:
    consumer, echo, _ = make()
    echo.fails = 1
    send(line, b"good 1")
    with pytest.raises(LineDown):
        consumer.step(0)
    assert answers(line) == []
    until(lambda: answers(line) == [b"good 1"], lambda: consumer.step(0))


def test_the_more_urgent_stream_is_served_first(make: Make, line: Line) -> None:
    ranks = [["derma:p:a:0", "derma:p:b:0"], ["derma:p:a:1"]]
    consumer, echo, _ = make(count=1, echo=Echo(ranks))
    for key, data in (("derma:p:a:1", b"good later"), ("derma:p:b:0", b"good now"), ("derma:p:a:0", b"good now")):
        send(line, data, key=key)
    for _ in range(3):
        consumer.step(0)
    assert echo.batches == [[b"good now"], [b"good now"], [b"good later"]]


def test_many_streams_give_no_more_than_a_batch_at_once(make: Make, line: Line) -> None:
    keys = [f"derma:p:{i}" for i in range(20)]
    consumer, echo, _ = make(count=6, echo=Echo([keys, ["derma:p:last"]]))
    for key in keys:
        send(line, b"good", b"good", key=key)
    while sum(map(len, echo.batches)) < 40:
        consumer.step(0)
    assert max(map(len, echo.batches)) <= 6


def test_lag_stays_exact_while_streams_are_trimmed(make: Make, line: Line, bare: redis.Redis) -> None:
    consumer, _, _ = make(count=4, idle_s=600.0)
    line.join(KEY, GROUP)
    for i in range(30):
        send(line, *(b"good %d" % (3 * i + k) for k in range(3)))
        if i % 4 == 3:
            line.take(GROUP, "dead", [KEY], 1, 0)  # stays pending: nothing behind it may go
        consumer.step(0)
        line.trim(KEY)
        facts = bare.xinfo_groups(KEY)[0]
        delivered = facts["entries-read"]
        assert facts["lag"] == 3 * (i + 1) - delivered, "what Redis calls lag is what was never delivered"
        assert bare.xlen(KEY) >= facts["lag"] + facts["pending"]
    pending = bare.xpending(KEY, GROUP)
    assert bare.xrange(KEY, count=1)[0][0] == pending["min"], "all before the oldest unanswered entry is gone"


def test_a_backlog_that_nobody_has_begun_with_is_the_whole_stream(line: Line) -> None:
    assert line.backlog(KEY, GROUP) == Backlog(0, 0)
    send(line, b"good 1", b"good 2")
    assert line.backlog(KEY, GROUP) == Backlog(2, 0)
    line.join(KEY, GROUP)
    line.take(GROUP, "w", [KEY], 1, 0)
    assert line.backlog(KEY, GROUP) == Backlog(1, 1)


def test_a_worker_that_leaves_takes_its_name_off_the_list_but_never_with_entries_in_hand(
    make: Make, line: Line, bare: redis.Redis
) -> None:
    line.join(KEY, GROUP)
    send(line, b"good 1", b"good 2")
    line.take(GROUP, "dead", [KEY], 1, 0)
    line.leave(KEY, GROUP, "dead")
    stop = Stop()

    class Last(Echo):
        def answer(self, line: Line, taken: Sequence[Taken[bytes]]) -> list[tuple[str, bytes]]:
            stop.ask()
            return super().answer(line, taken)

    consumer, _, _ = make("w1", count=1, echo=Last(), idle_s=600.0)
    consumer.run(stop)
    assert len(answers(line)) == 1, "what was in hand is finished"
    assert [c["name"] for c in bare.xinfo_consumers(KEY, GROUP)] == [b"dead"]
    assert line.backlog(KEY, GROUP).pending == 1


def test_a_worker_outlives_its_redis_and_goes_on(
    server: RedisServer, make: Make, line: Line, until: Callable[..., None]
) -> None:
    consumer, _, _ = make()
    send(line, b"good 1")
    consumer.step(0)
    server.kill()
    with pytest.raises(LineDown):
        consumer.step(0)
    server.start()
    send(line, b"good 2")
    until(lambda: answers(line) == [b"good 1", b"good 2"], lambda: consumer.step(0))


def test_a_group_that_is_gone_is_joined_again(
    make: Make, line: Line, bare: redis.Redis, until: Callable[..., None]
) -> None:
    stop = Stop()
    consumer, _, metrics = make()
    send(line, b"good 1")
    consumer.step(0)
    bare.flushall()
    send(line, b"good 2")

    class Ends(Echo):
        def answer(self, line: Line, taken: Sequence[Taken[bytes]]) -> list[tuple[str, bytes]]:
            stop.ask()
            return super().answer(line, taken)

    consumer._work = Ends()
    consumer.run(stop)
    assert answers(line) == [b"good 2"]
    assert values(metrics, "derma_cloud_failures_total") == {(): 1}


def test_a_worker_that_redis_refuses_from_the_first_ends_with_one_clear_line(guarded: RedisServer) -> None:
    line = Line(guarded.access("scaler"))
    consumer = Consumer(line, "w", Echo(), Terms(GROUP, 1, 1.0), WorkerMetrics("job"))
    with pytest.raises(ResourceError, match=r"^Redis refuses us: .*'xgroup.*; see the cloud settings and users.acl$"):
        consumer.run(Stop())
    line.close()
