"""The grabber drains a live source, keeps the newest picture and numbers all of them."""

from __future__ import annotations

import queue

import numpy as np
import pytest

from derma_capture.grabber import Grabber
from derma_common.errors import SourceError


def picture(level):
    return np.full((2, 2, 3), level, dtype=np.uint8)


class Source:
    """Gives what a test puts into it: a picture (taken at 7 ns), None for a lost camera, or an error."""

    def __init__(self):
        self.items = queue.Queue()
        self.opened = self.closed = 0
        self.refusals = []

    def open(self):
        if self.refusals:
            raise self.refusals.pop()
        self.opened += 1
        return self.read, self.close

    def read(self):
        item = self.items.get()
        if isinstance(item, Exception):
            raise item
        return None if item is None else (item, 7)

    def close(self):
        self.closed += 1


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def grab(source):
    grabbers = []

    def start(reopens, must_open=True):
        grabbers.append(Grabber(source.open, reopens, must_open))
        return grabbers[-1]

    yield start
    source.items.put(None)
    for grabber in grabbers:
        grabber.close()


def test_only_the_newest_picture_is_kept(grab, source, until):
    grabber = grab(reopens=False)
    for level in range(5):
        source.items.put(picture(level))
    until(lambda: grabber.grabbed == 5)
    shot = grabber.newest()
    assert (shot.number, int(shot.image[0, 0, 0]), shot.captured_ns) == (4, 4, 7)


def test_a_picture_is_given_once(grab, source, until):
    grabber = grab(reopens=False)
    source.items.put(picture(0))
    until(lambda: grabber.grabbed == 1)
    assert grabber.newest() is not None
    assert grabber.newest() is None


def test_what_went_by_is_known_by_its_number(grab, source, until):
    grabber = grab(reopens=False)
    numbers = []
    for batch in (1, 3, 2):
        before = grabber.grabbed
        for level in range(batch):
            source.items.put(picture(level))
        until(lambda before=before, batch=batch: grabber.grabbed == before + batch)
        numbers.append(grabber.newest().number)
    assert numbers == [0, 3, 5]


def test_a_picture_wakes_the_loop_until_it_is_drained(grab, source, hub, until):
    grabber = grab(reopens=False)
    hub.watch(grabber.wake_fd)
    assert hub.wait(0) == set()
    source.items.put(picture(0))
    assert hub.wait(10) == {grabber.wake_fd}
    grabber.drain()
    grabber.drain()
    assert hub.wait(0) == set()


def test_a_source_that_is_no_camera_ends(grab, source, until):
    grabber = grab(reopens=False)
    source.items.put(picture(0))
    source.items.put(None)
    until(lambda: grabber.ended)
    assert (source.opened, source.closed, grabber.grabbed, grabber.error) == (1, 1, 1, None)
    assert grabber.newest().number == 0


def test_a_lost_camera_is_opened_again_and_its_numbers_go_on(grab, source, until):
    grabber = grab(reopens=True)
    source.items.put(picture(0))
    source.items.put(None)
    source.items.put(picture(1))
    until(lambda: grabber.grabbed == 2)
    assert not grabber.ended
    assert (source.opened, source.closed) == (2, 1)
    assert grabber.newest().number == 1


def test_a_lost_camera_that_does_not_open_at_once_is_tried_again(grab, source, until):
    grabber = grab(reopens=True)
    source.items.put(picture(0))
    until(lambda: grabber.grabbed == 1)
    source.refusals.append(SourceError("unplugged"))
    source.items.put(None)
    source.items.put(picture(1))
    until(lambda: grabber.grabbed == 2)
    assert grabber.error is None


@pytest.mark.parametrize("reopens", [True, False])
def test_a_source_that_never_opens_ends_with_its_error(grab, source, until, reopens):
    error = SourceError("camera 7 does not open")
    source.refusals.append(error)
    grabber = grab(reopens)
    until(lambda: grabber.ended)
    assert grabber.error is error
    assert grabber.newest() is None


def test_a_recording_that_is_found_damaged_while_it_plays_ends_with_its_error(grab, source, until):
    grabber = grab(reopens=False)
    error = SourceError("no picture that can be decoded")
    source.items.put(picture(0))
    source.items.put(error)
    until(lambda: grabber.ended)
    assert grabber.error is error
    assert source.closed == 1


def test_a_camera_that_its_dead_predecessor_had_is_waited_for(grab, source, until):
    source.refusals.append(SourceError("unplugged just now"))
    grabber = grab(reopens=True, must_open=False)
    until(lambda: "unplugged just now" in grabber.note)
    source.items.put(picture(0))
    until(lambda: grabber.grabbed == 1)
    assert (grabber.ended, grabber.note) == (False, "")
