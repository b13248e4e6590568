"""The rings of one camera over time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_capture.slots import Slots
from derma_common.rings import RingReader


def picture(height=8, width=8, level=0):
    return np.full((height, width, 3), level, dtype=np.uint8)


@pytest.fixture
def slots(run_dir):
    made = Slots(run_dir, "cam0", incarnation=1)
    yield made
    made.close()


def rings(run_dir):
    return sorted(path.name for path in run_dir.glob("ring-*"))


def test_nothing_is_allocated_before_the_first_picture(slots, run_dir):
    assert rings(run_dir) == []
    assert slots.counts == (0, 0)


def test_pictures_of_one_size_share_a_ring(slots, run_dir):
    for _ in range(3):
        slots.write(picture(), 3)
    assert len(rings(run_dir)) == 1
    assert slots.counts == (3, 0)


def test_a_larger_picture_opens_a_ring_and_the_old_one_goes_with_its_last_frame(slots, run_dir):
    small = slots.write(picture(), 2)
    large = slots.write(picture(16, 16), 2)
    assert large.epoch > small.epoch
    assert len(rings(run_dir)) == 2
    slots.release(small)
    assert rings(run_dir) == [f"ring-cam0-{large.epoch}"]


def test_a_wider_window_opens_a_ring(slots, run_dir):
    first = slots.write(picture(), 1)
    second = slots.write(picture(), 2)
    assert second.epoch > first.epoch
    slots.release(first)
    assert slots.counts == (2, 1)


def test_the_rings_of_a_dead_predecessor_are_removed_and_their_epochs_not_used_again(run_dir):
    dead = Slots(run_dir, "cam0", incarnation=0)
    old = dead.write(picture(), 2)
    successor = Slots(run_dir, "cam0", incarnation=1)
    assert rings(run_dir) == []
    assert successor.write(picture(), 2).epoch > old.epoch
    successor.close()


def test_the_rings_of_another_camera_are_left_alone(run_dir):
    other = Slots(run_dir, "cam1", incarnation=0)
    other.write(picture(), 1)
    Slots(run_dir, "cam0", incarnation=0)
    assert len(rings(run_dir)) == 1
    other.close()


def test_a_camera_whose_name_begins_like_another_leaves_its_rings_alone(run_dir):
    other = Slots(run_dir, "cam-left", incarnation=0)
    other.write(picture(), 1)
    Slots(run_dir, "cam", incarnation=0)
    assert len(rings(run_dir)) == 1
    other.close()


def test_closing_leaves_nothing(slots, run_dir):
    slots.write(picture(), 2)
    slots.write(picture(16, 16), 2)
    slots.close()
    assert rings(run_dir) == []


STEPS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4), st.booleans()), max_size=25)


@given(steps=STEPS)
def test_a_held_picture_stays_as_it_was_whatever_comes_after(run_dir, steps):
    slots, reader = Slots(run_dir, "cam0", incarnation=0), RingReader(run_dir)
    held = []
    for level, (side, window, give_back) in enumerate(steps):
        while held and (give_back or len(held) >= window):
            slots.release(held.pop(0)[0])
        held.append((slots.write(picture(side, side, level), window), level))
        for handle, expected in held:
            with reader.picture(handle) as image:
                assert (image == expected).all()
        total, free = slots.counts
        assert total - free == len(held)
    for handle, _ in held:
        slots.release(handle)
    assert len(rings(run_dir)) <= 1
    reader.close()
    slots.close()
