"""The work pool: nobody gets more than they asked for, nothing is lost, older attempts are forgotten."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.builders import crops, frame, handle

from derma_common.messages import Capacity
from derma_common.workpool import WorkPool

SILENT_NS = 1000
OWNER = "detector.0/0"


def capacity(room, finished=0):
    return Capacity("classifier.0", room, {OWNER: finished})


def taken(pool, now_ns=0):
    work = []
    while (chosen := pool.take(now_ns)) is not None:
        work.append(chosen)
    return work


def indices(work):
    return list(range(work.first, work.first + len(work.squares)))


def test_nobody_gets_work_before_saying_that_there_is_room():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.put(crops(frame(), 3))
    assert pool.take(0) is None
    assert pool.pending == 3


def test_a_worker_gets_as_many_crops_as_it_has_room_for():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.heard(b"a", capacity(4), 0)
    pool.put(crops(frame(), 10))
    assert [len(work.squares) for _, work in taken(pool)] == [4]
    assert pool.pending == 6
    assert pool.sent_to(b"a") == 4


def test_the_same_statement_again_gives_no_more_room():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.put(crops(frame(), 10))
    for _ in range(3):
        pool.heard(b"a", capacity(4), 0)
        taken(pool)
    assert pool.sent_to(b"a") == 4


def test_one_frame_spreads_over_all_workers():
    pool = WorkPool(OWNER, SILENT_NS)
    for worker in (b"a", b"b", b"c"):
        pool.heard(worker, capacity(8), 0)
    pool.put(crops(frame(), 6))
    shares = taken(pool)
    assert Counter({w: sum(len(x.squares) for i, x in shares if i == w) for w in (b"a", b"b", b"c")}) == Counter(
        {b"a": 2, b"b": 2, b"c": 2}
    )
    assert sorted(i for _, work in shares for i in indices(work)) == list(range(6))


def test_a_silent_worker_gets_nothing():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.heard(b"a", capacity(4), 0)
    pool.put(crops(frame()))
    assert pool.take(SILENT_NS + 1) is None
    assert pool.take(SILENT_NS) is not None


def test_a_leaving_worker_gets_nothing():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.heard(b"a", capacity(4), 0)
    pool.heard(b"a", capacity(0), 0)
    pool.put(crops(frame()))
    assert pool.take(0) is None


def test_work_of_an_older_attempt_at_the_same_frame_is_forgotten():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.put(crops(frame(seq=1, attempt=0), 3))
    pool.put(crops(frame(seq=2, attempt=0), 1))
    pool.put(crops(frame(seq=1, attempt=1), 2))
    pool.heard(b"a", capacity(100), 0)
    assert [(w.frame.seq, w.frame.attempt) for _, w in taken(pool)] == [(2, 0), (1, 1)]


def test_what_waits_is_bounded_by_the_slots_when_nobody_takes_it():
    pool = WorkPool(OWNER, SILENT_NS)
    for seq in range(1000):
        pool.put(crops(frame(seq, handle=handle(slot=seq % 8)), 2))
    assert pool.pending == 16


def test_the_same_slots_of_two_cameras_are_kept_apart():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.put(crops(frame(1)))
    pool.put(crops(frame(1, camera="cam1")))
    assert pool.pending == 2


def test_work_that_could_not_be_sent_goes_first_to_another_worker():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.heard(b"a", capacity(4), 0)
    pool.put(crops(frame(seq=1)))
    pool.put(crops(frame(seq=2)))
    identity, work = pool.take(0)
    pool.gone(identity)
    pool.put_back(work)
    assert pool.take(0) is None
    pool.heard(b"b", capacity(4), 0)
    assert [(i, w.frame.seq) for i, w in taken(pool)] == [(b"b", 1), (b"b", 2)]


def test_a_successor_counts_only_what_it_sent_itself():
    successor = WorkPool("detector.0/1", SILENT_NS)
    successor.heard(b"a", Capacity("classifier.0", 4, {"detector.0/0": 100}), 0)
    successor.put(crops(frame(), 10))
    assert sum(len(w.squares) for _, w in taken(successor)) == 4
    assert successor.sent_to(b"a") == 4


def test_a_worker_that_is_long_silent_is_forgotten_and_may_come_again():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.heard(b"a", capacity(4), 0)
    pool.forget_silent(5000, 4000)
    assert pool.sent_to(b"a") == 0
    pool.heard(b"a", capacity(4, finished=7), 5000)
    pool.put(crops(frame()))
    assert pool.take(5000) is not None


class Pool(RuleBasedStateMachine):
    """Detector, pool and workers: what was put is pending, in some worker's hands, finished, lost or overtaken."""

    def __init__(self):
        super().__init__()
        self.pool = WorkPool(OWNER, SILENT_NS)
        self.now_ns = 0
        self.seq = 0
        self.put_crops = 0
        self.done = 0
        self.lost = 0
        self.overtaken = 0
        self.hands = {}  # identity → works in hand
        self.finished = {}  # identity → crops
        self.room = {}

    @rule(n=st.integers(1, 9))
    def put(self, n):
        self.pool.put(crops(frame(self.seq), n))
        self.seq += 1
        self.put_crops += n

    @rule(room=st.integers(1, 6))
    def a_worker_comes(self, room):
        if len(self.hands) < 4:
            identity = b"%d" % (len(self.finished))
            self.hands[identity], self.finished[identity], self.room[identity] = [], 0, room

    @rule()
    def workers_state_their_capacity(self):
        for identity in self.hands:
            self.pool.heard(identity, capacity(self.room[identity], self.finished[identity]), self.now_ns)

    @rule()
    def hand_out(self):
        for identity, work in taken(self.pool, self.now_ns):
            self.hands[identity].append(work)

    @precondition(lambda self: any(self.hands.values()))
    @rule(data=st.data())
    def a_worker_finishes(self, data):
        identity = data.draw(st.sampled_from([i for i, work in self.hands.items() if work]))
        n = len(self.hands[identity].pop(0).squares)
        self.finished[identity] += n
        self.done += n

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def a_worker_dies(self, data):
        identity = data.draw(st.sampled_from(sorted(self.hands)))
        self.lost += sum(len(work.squares) for work in self.hands.pop(identity))
        self.pool.gone(identity)

    @rule(data=st.data())
    def a_frame_is_tried_again(self, data):
        if self.seq:
            before = self.pool.pending
            again = crops(frame(data.draw(st.integers(0, self.seq - 1)), attempt=self.seq), 2)
            self.pool.put(again)
            self.put_crops += 2
            self.overtaken += before + 2 - self.pool.pending

    @rule(ns=st.integers(0, 2 * SILENT_NS))
    def time_passes(self, ns):
        self.now_ns += ns

    @invariant()
    def nobody_holds_more_than_its_room(self):
        for identity, work in self.hands.items():
            assert sum(len(w.squares) for w in work) <= self.room[identity]

    @invariant()
    def nothing_is_lost(self):
        in_hand = sum(len(w.squares) for work in self.hands.values() for w in work)
        assert self.put_crops == self.pool.pending + in_hand + self.done + self.lost + self.overtaken


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_work_whose_slot_holds_a_newer_frame_is_forgotten():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.put(crops(frame(seq=1, handle=handle(slot=3))))
    pool.put(crops(frame(seq=9, handle=handle(slot=3, generation=4))))
    pool.heard(b"a", capacity(100), 0)
    assert [w.frame.seq for _, w in taken(pool)] == [9]


def test_workers_of_a_higher_rank_get_what_finds_no_room_below():
    pool = WorkPool(OWNER, SILENT_NS)
    pool.heard(b"far", Capacity("remote", 32, {}, rank=1), 0)
    pool.heard(b"near", Capacity("classifier.0", 2, {}), 0)
    pool.put(crops(frame(0), 5))
    given = [(identity, len(work.squares)) for identity, work in taken(pool)]
    assert given == [(b"near", 2), (b"far", 3)]
