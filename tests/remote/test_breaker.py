"""Dead workers cost one crop now and then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from derma_remote.breaker import FIRST_PAUSE_NS, LONGEST_PAUSE_NS, Breaker


def test_room_grows_with_every_answer_up_to_the_most():
    breaker = Breaker(6)
    rooms = []
    for _ in range(4):
        rooms.append(breaker.room(0))
        breaker.answered()
    assert rooms == [1, 2, 4, 6]


def test_after_a_miss_there_is_a_pause_then_one_probe_and_pauses_grow():
    breaker = Breaker(32)
    for _ in range(9):
        breaker.answered()
    now, pauses = 0, []
    for _ in range(9):
        breaker.missed(now)
        breaker.missed(now)  # all that was outstanding misses at once: it counts as one
        start = now
        while breaker.room(now) == 0:
            now += FIRST_PAUSE_NS // 4
        pauses.append(now - start)
        assert breaker.room(now) == 1
    assert pauses[:3] == [FIRST_PAUSE_NS, 2 * FIRST_PAUSE_NS, 4 * FIRST_PAUSE_NS] and pauses[-1] == LONGEST_PAUSE_NS
    breaker.answered()
    breaker.missed(now)
    assert breaker.room(now + FIRST_PAUSE_NS) == 1  # an answer makes it hopeful again


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**10)), max_size=50), st.integers(1, 64))
def test_room_is_always_between_nothing_and_the_most(events, most):
    breaker, now = Breaker(most), 0
    for good, later in events:
        now += later
        breaker.answered() if good else breaker.missed(now)
        assert 0 <= breaker.room(now) <= most
