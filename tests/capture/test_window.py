"""The credit window against a model of sink and network: conservation after every step, nothing freed twice."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.builders import frame

from derma_capture.window import CreditWindow
from derma_common.messages import Ack, Close
from derma_common.seqset import SeqSet


def ack(*seqs, delivered=None, dropped=None):
    durable = SeqSet()
    for seq in seqs:
        durable.add(seq)
    return Ack("cam0", durable.ranges, len(durable) if delivered is None else delivered, dropped or {})


@pytest.fixture
def window():
    made = CreditWindow("cam0", 2, incarnation=0)
    made.acknowledge(ack())
    return made


def conserved(window):
    terms = window.terms()
    return terms.captured == terms.delivered + sum(terms.dropped.values()) + terms.in_flight


def test_there_is_no_credit_before_the_sink_said_what_is_durable():
    window = CreditWindow("cam0", 2, incarnation=0)
    assert not window.has_credit
    window.acknowledge(ack())
    assert window.has_credit


def test_a_frame_takes_a_credit_until_its_outcome_is_durable(window):
    window.take(frame(0))
    window.take(frame(1))
    assert not window.has_credit
    assert window.acknowledge(ack(1)) == [frame(1)]
    assert window.has_credit
    assert list(window.held) == [0]


def test_the_same_acknowledgement_frees_nothing_again(window):
    window.take(frame(0))
    assert window.acknowledge(ack(0)) == [frame(0)]
    assert window.acknowledge(ack(0)) == []
    assert conserved(window)


def test_an_acknowledgement_that_was_overtaken_changes_nothing(window):
    for seq in (0, 1):
        window.take(frame(seq))
    window.acknowledge(ack(0, 1))
    before = window.terms()
    assert window.acknowledge(ack(0)) == []
    assert window.terms() == before
    assert 1 in window.durable


def test_a_frame_cannot_be_taken_twice(window):
    window.take(frame(0))
    with pytest.raises(ValueError, match="taken before"):
        window.take(frame(0))
    window.acknowledge(ack(0))
    with pytest.raises(ValueError, match="taken before"):
        window.take(frame(0))


def test_dropped_frames_next_to_each_other_are_closed_as_one_range(window):
    window.drop(0, 3, "busy")
    window.drop(4, 4, "busy")
    window.drop(6, 7, "busy")
    assert window.closings() == [Close("cam0", ((0, 4),), "busy"), Close("cam0", ((6, 7),), "busy")]


def test_frames_dropped_for_their_file_are_closed_one_by_one_with_its_name(window):
    window.drop(0, 0, "unreadable", "a.png")
    window.drop(1, 1, "unreadable", "b.png")
    assert [close.origin for close in window.closings()] == ["a.png", "b.png"]


def test_closings_are_asked_again_until_they_are_durable(window):
    window.drop(0, 4, "busy")
    assert window.closings() == window.closings() != []
    window.acknowledge(ack(0, 1, 4, delivered=0, dropped={"busy": 3}))
    assert window.closings() == [Close("cam0", ((2, 3),), "busy")]
    assert not window.idle
    window.acknowledge(ack(0, 1, 2, 3, 4, delivered=0, dropped={"busy": 5}))
    assert window.closings() == []
    assert window.idle


def test_a_frame_that_was_given_up_keeps_its_slot_until_the_sink_has_spoken(window):
    window.take(frame(0))
    window.give_up(0, "deadline")
    window.give_up(0, "poison")
    assert window.closings() == [Close("cam0", ((0, 0),), "deadline")]
    assert window.terms().in_flight == 1
    assert window.acknowledge(ack(0)) == [frame(0)]


def test_a_frame_that_is_sent_again_is_a_newer_attempt(window):
    window.take(frame(0, attempt=window.attempt))
    first = window.resend(0, now_ns=50)
    assert (first.attempt, first.sent_ns) == (window.attempt + 1, 50)
    assert window.resend(0, now_ns=60).attempt == first.attempt + 1


def test_a_successors_attempts_are_newer_than_any_of_its_predecessors():
    old = CreditWindow("cam0", 2, incarnation=0)
    old.acknowledge(ack())
    old.take(frame(0, attempt=old.attempt))
    newest = [old.resend(0, 0).attempt for _ in range(1000)][-1]
    assert CreditWindow("cam0", 2, incarnation=1).attempt > newest


def test_what_a_predecessor_left_open_is_captured_and_closed():
    window = CreditWindow("cam0", 2, incarnation=1)
    window.acknowledge(ack(0, 1, 4))
    window.adopt(window.durable.gaps(0, 5), "capture_restart")
    assert window.closings() == [
        Close("cam0", ((2, 3),), "capture_restart"),
        Close("cam0", ((5, 5),), "capture_restart"),
    ]
    assert window.terms().captured == 6
    assert conserved(window)
    assert window.next_seq == 6


class Camera(RuleBasedStateMachine):
    """A live camera, its window, the sink's rows and a network that delays acknowledgements and closings."""

    @initialize(size=st.integers(1, 4))
    def begin(self, size):
        self.size = size
        self.incarnation = 0
        self.next_seq = 0
        self.rows = {}  # seq → outcome, as the sink stored it
        self.acks = []  # published so far
        self.closings = []  # asked so far
        self.sent = set()  # that may still come to an outcome, of all incarnations
        self.slots = set()
        self.open_window()

    def open_window(self):
        self.window = CreditWindow("cam0", self.size, self.incarnation)
        self.slots = set()
        self.adopted = False

    def publish(self):
        dropped = {}
        for reason in self.rows.values():
            if reason != "delivered":
                dropped[reason] = dropped.get(reason, 0) + 1
        delivered = len(self.rows) - sum(dropped.values())
        self.acks.append(ack(*self.rows, delivered=delivered, dropped=dropped))

    def hear(self, message):
        freed = [f.seq for f in self.window.acknowledge(message)]
        assert len(set(freed)) == len(freed)
        assert set(freed) <= self.slots, "a slot was freed twice, or was never held"
        self.slots -= set(freed)
        if not self.adopted:
            self.adopted = True
            self.window.adopt(self.window.durable.gaps(0, self.next_seq - 1), "capture_restart")

    @rule()
    def an_acknowledgement_comes(self):
        self.publish()
        self.hear(self.acks[-1])

    @precondition(lambda self: self.acks)
    @rule(data=st.data())
    def an_old_acknowledgement_comes(self, data):
        self.hear(data.draw(st.sampled_from(self.acks)))

    @precondition(lambda self: self.window.has_credit)
    @rule()
    def take(self):
        self.window.take(frame(self.next_seq, self.window.attempt))
        self.slots.add(self.next_seq)
        self.sent.add(self.next_seq)
        self.next_seq += 1

    @precondition(lambda self: self.window.synchronised)
    @rule(n=st.integers(1, 5), reason=st.sampled_from(("busy", "unreadable")))
    def drop(self, n, reason):
        self.window.drop(self.next_seq, self.next_seq + n - 1, reason)
        self.next_seq += n

    @precondition(lambda self: self.window.held)
    @rule(data=st.data(), reason=st.sampled_from(("deadline", "poison")))
    def give_up(self, data, reason):
        self.window.give_up(data.draw(st.sampled_from(sorted(self.window.held))), reason)

    @precondition(lambda self: self.window.held)
    @rule(data=st.data())
    def send_again(self, data):
        seq = data.draw(st.sampled_from(sorted(self.window.held)))
        before = self.window.held[seq].frame.attempt
        assert self.window.resend(seq, 1).attempt == before + 1

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def the_sink_delivers(self, data):
        self.rows.setdefault(data.draw(st.sampled_from(sorted(self.sent))), "delivered")

    @rule()
    def closings_are_sent(self):
        self.closings += self.window.closings()

    @precondition(lambda self: self.closings)
    @rule(data=st.data())
    def the_sink_closes(self, data):
        close = data.draw(st.sampled_from(self.closings))
        for first, last in close.ranges:
            for seq in range(first, last + 1):
                self.rows.setdefault(seq, close.reason)

    @rule()
    def capture_dies_and_comes_again(self):
        self.incarnation += 1
        self.open_window()

    @invariant()
    def the_law_holds(self):
        if not hasattr(self, "window"):
            return
        assert conserved(self.window)
        if self.adopted:
            assert self.window.terms().captured == self.next_seq

    @invariant()
    def credits_are_slots(self):
        if not hasattr(self, "window"):
            return
        assert set(self.window.held) == self.slots
        assert len(self.slots) <= self.size

    @invariant()
    def a_new_frame_never_has_an_old_number(self):
        if hasattr(self, "window") and self.adopted:
            assert self.window.next_seq <= self.next_seq

    def teardown(self):
        """Finish: give everything up, close it, and compare both counts."""
        if not hasattr(self, "window"):
            return
        self.an_acknowledgement_comes()
        for seq in list(self.window.held):
            self.window.give_up(seq, "deadline")
        self.closings = self.window.closings()
        for close in self.closings:
            for first, last in close.ranges:
                for seq in range(first, last + 1):
                    self.rows.setdefault(seq, close.reason)
        self.an_acknowledgement_comes()
        terms = self.window.terms()
        assert self.window.idle
        assert not self.slots
        assert sorted(self.rows) == list(range(self.next_seq))
        assert terms.delivered == sum(reason == "delivered" for reason in self.rows.values())
        assert terms.captured == len(self.rows)


TestCamera = Camera.TestCase
TestCamera.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
