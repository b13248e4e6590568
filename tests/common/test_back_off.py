"""Pauses double from the first to the longest, half of each is drawn, and a success begins anew."""

from __future__ import annotations

import random

import pytest

from derma_common.back_off import BackOff

LONGEST_S = [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize("seed", range(20))
def test_pauses_double_up_to_the_longest(seed):
    back_off = BackOff(0.5, 5.0, random.Random(seed))
    assert all(longest / 2 <= back_off.failed() <= longest for longest in LONGEST_S)


def test_those_that_failed_together_do_not_come_back_together():
    pauses = sorted(BackOff(4.0, 30.0, random.Random(seed)).failed() for seed in range(200))
    assert pauses[0] < 2.1 and pauses[-1] > 3.9 and len(set(pauses)) == 200


def test_after_a_success_pauses_are_short_again():
    back_off = BackOff(0.5, 5.0)
    for _ in range(10_000):
        last_s = back_off.failed()
    assert 2.5 <= last_s <= 5.0 and back_off.failures == 10_000
    back_off.worked()
    assert back_off.failures == 0 and back_off.failed() <= 0.5
