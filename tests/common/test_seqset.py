"""SeqSet against Python's own set."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.seqset import SeqSet

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda t: (t[0], t[0] + t[1])), max_size=25)


def members(ranges):
    return {seq for first, last in ranges for seq in range(first, last + 1)}


@given(RANGES)
def test_it_holds_what_a_set_holds(ranges):
    seqs, model = SeqSet(ranges), members(ranges)
    assert list(seqs) == sorted(model)
    assert len(seqs) == len(model)
    assert [seq in seqs for seq in range(80)] == [seq in model for seq in range(80)]
    assert seqs.end == max(model, default=-1) + 1


@given(RANGES)
def test_its_ranges_ascend_and_never_touch(ranges):
    kept = SeqSet(ranges).ranges
    assert all(first <= last for first, last in kept)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(kept))


@given(RANGES)
def test_it_does_not_matter_how_the_same_members_came(ranges):
    one_by_one = SeqSet()
    for seq in sorted(members(ranges), reverse=True):
        one_by_one.add(seq)
    assert one_by_one == SeqSet(ranges)
    assert SeqSet(one_by_one.ranges) == one_by_one


@given(RANGES, st.integers(0, 80), st.integers(0, 80))
def test_gaps_are_what_is_missing_in_between(ranges, first, last):
    gaps = SeqSet(ranges).gaps(first, last)
    assert members(gaps) == set(range(first, last + 1)) - members(ranges)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(gaps))


@pytest.mark.parametrize(("first", "last"), [(-1, 3), (5, 4), (-2, -1)])
def test_a_range_that_is_none_is_refused(first, last):
    with pytest.raises(ValueError, match="no range"):
        SeqSet().add(first, last)


def test_sets_with_other_members_differ():
    assert SeqSet([(0, 3)]) != SeqSet([(0, 2)])
    assert SeqSet([(0, 3)]) != {0, 1, 2, 3}
