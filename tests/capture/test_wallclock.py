"""Pictures are dated by the wall clock as it stands; a step of it is noticed once."""

from __future__ import annotations

import pytest

from derma_capture.wallclock import WallClock

SECOND = 1_000_000_000


class Clocks:
    """Both clocks of a machine, which a test sets."""

    def __init__(self):
        self.wall, self.monotonic = 1_000_000 * SECOND, 50 * SECOND

    def go_on(self, seconds):
        self.wall += round(seconds * SECOND)
        self.monotonic += round(seconds * SECOND)


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def clock(clocks):
    return WallClock(lambda: clocks.wall, lambda: clocks.monotonic)


def test_a_moment_that_has_passed_is_dated_when_it_was(clocks, clock):
    moment = clocks.monotonic
    clocks.go_on(1.5)
    assert clock.at(moment) == 1_000_000 * SECOND


@pytest.mark.parametrize(("by_s", "said"), [(-3600, "went back by 3600.0 s"), (7200, "went ahead by 7200.0 s")])
def test_a_step_is_told_once_and_later_pictures_are_dated_by_the_new_time(clocks, clock, caplog, by_s, said):
    clocks.go_on(1)
    clocks.wall += by_s * SECOND
    assert clock.at(clocks.monotonic) == clocks.wall
    clocks.go_on(1)
    assert clock.at(clocks.monotonic) == clocks.wall
    assert [said in message for message in caplog.messages] == [True]


def test_a_clock_that_is_slewed_is_not_told(clocks, clock, caplog):
    for _ in range(1000):
        clocks.go_on(1)
        clocks.wall += 500_000  # the most that the kernel slews in a second
        clock.at(clocks.monotonic)
    assert caplog.messages == []
