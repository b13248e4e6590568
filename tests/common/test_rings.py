"""Rings of pictures in shared memory: real files, real mappings."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.errors import ResourceError, StaleHandle
from derma_common.messages import Handle
from derma_common.rings import RingReader, RingWriter, ring_path


def picture(height=12, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def ring(run_dir):
    writer = RingWriter(run_dir, "cam0", 7, slots=3, slot_bytes=12 * 20 * 3)
    yield writer
    if writer.path.exists():
        writer.close()


@pytest.fixture
def reader(run_dir):
    rings = RingReader(run_dir)
    yield rings
    rings.close()


def seen(reader, handle):
    with reader.picture(handle) as image:
        return image.copy()


def test_a_reader_sees_the_pixels_that_were_written(ring, reader):
    pictures = [picture(seed=i) for i in range(3)]
    handles = [ring.write(image) for image in pictures]
    for image, handle in zip(pictures, handles, strict=True):
        np.testing.assert_array_equal(seen(reader, handle), image)
        np.testing.assert_array_equal(ring.view(handle), image)


@given(height=st.integers(1, 12), width=st.integers(1, 20), seed=st.integers(0, 9))
def test_a_smaller_picture_fits_a_larger_slot(ring, reader, height, width, seed):
    image = picture(height, width, seed)
    handle = ring.write(image)
    np.testing.assert_array_equal(seen(reader, handle), image)
    assert (handle.height, handle.width) == (height, width)
    ring.release(handle)


def test_a_picture_that_is_a_view_of_a_larger_one_is_copied_right(ring, reader):
    image = picture(24, 40)[::2, ::2]
    np.testing.assert_array_equal(seen(reader, ring.write(image)), image)


def test_what_a_reader_sees_cannot_be_changed(ring, reader):
    with reader.picture(ring.write(picture())) as image, pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_a_handle_whose_slot_was_used_again_is_stale_on_entry(ring, reader):
    old = ring.write(picture())
    ring.release(old)
    new = ring.write(picture(seed=1))
    assert new.slot == old.slot
    with pytest.raises(StaleHandle, match="holds generation"), reader.picture(old):
        pytest.fail("the body must not run")
    np.testing.assert_array_equal(seen(reader, new), picture(seed=1))


def test_a_slot_that_is_overwritten_while_it_is_used_is_stale_on_exit(ring, reader):
    handle = ring.write(picture())
    used = []
    with pytest.raises(StaleHandle, match="holds generation"), reader.picture(handle) as image:
        used.append(image.copy())
        ring.release(handle)
        ring.write(picture(seed=1))
    np.testing.assert_array_equal(used[0], picture())


def test_a_picture_larger_than_the_slots_does_not_fit(ring):
    assert ring.fits(picture())
    assert not ring.fits(picture(13, 20))


def test_a_full_ring_writes_nothing(ring):
    for _ in range(3):
        ring.write(picture())
    assert ring.free == 0
    with pytest.raises(IndexError):
        ring.write(picture())


def test_released_slots_are_used_again(ring):
    handles = [ring.write(picture()) for _ in range(3)]
    ring.release(handles[1])
    assert ring.write(picture()).slot == handles[1].slot
    assert ring.free == 0


def test_a_slot_cannot_be_released_twice(ring):
    handle = ring.write(picture())
    ring.release(handle)
    with pytest.raises(ValueError, match="is not held"):
        ring.release(handle)
    assert ring.free == 3


def test_a_slot_of_another_epoch_cannot_be_released(ring):
    handle = ring.write(picture())
    with pytest.raises(ValueError, match="is not held"):
        ring.release(replace(handle, epoch=8))


def test_a_reader_follows_a_camera_to_its_next_ring(run_dir, ring, reader):
    old = ring.write(picture())
    seen(reader, old)
    larger = RingWriter(run_dir, "cam0", 8, slots=1, slot_bytes=30 * 30 * 3)
    handle = larger.write(picture(30, 30))
    np.testing.assert_array_equal(seen(reader, handle), picture(30, 30))
    np.testing.assert_array_equal(seen(reader, old), picture())
    larger.close()


def test_a_ring_that_is_gone_is_stale(ring, reader):
    handle = ring.write(picture())
    ring.close()
    with pytest.raises(StaleHandle, match="is gone"), reader.picture(handle):
        pytest.fail("the body must not run")


def test_a_reader_keeps_its_picture_when_the_ring_is_closed_meanwhile(ring, reader):
    handle = ring.write(picture())
    with reader.picture(handle) as image:
        ring.close()
        np.testing.assert_array_equal(image, picture())


@pytest.mark.parametrize(
    "wrong",
    [{"slot": 3}, {"slot": -1}, {"slot": 1 << 60}, {"height": 0}, {"width": -1}, {"height": 13}, {"width": 1 << 60},
     {"generation": 0}, {"epoch": -1}, {"epoch": 1 << 60}],
    ids=str,
)  # fmt: skip
def test_a_handle_of_no_slot_is_stale(ring, reader, wrong):
    handle = replace(ring.write(picture()), **wrong)
    with pytest.raises(StaleHandle), reader.picture(handle):
        pytest.fail("the body must not run")


@pytest.mark.parametrize(
    "camera",
    ["../cam0", "x/../cam0", "cam0-7/x", "/etc/passwd", "", "cam0\0", "c" * 4000, "..", "\n", "ring-cam0"],
    ids=lambda text: repr(text[:12]),
)
def test_a_camera_of_another_name_is_stale_and_never_a_path(run_dir, ring, reader, camera):
    (run_dir / "ring-x").mkdir()
    handle = replace(ring.write(picture()), camera=camera)
    with pytest.raises(StaleHandle), reader.picture(handle):
        pytest.fail("the body must not run")


@given(handle=st.builds(Handle, st.text(max_size=9), *[st.integers(-(2**62), 2**62)] * 5))
def test_any_handle_that_capture_did_not_make_is_stale(ring, reader, handle):
    with pytest.raises(StaleHandle), reader.picture(handle):
        pytest.fail("the body must not run")


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 8192], ids=["empty", "short", "other"])
def test_a_file_that_is_no_ring_is_stale(run_dir, reader, content):
    ring_path(run_dir, "cam0", 0).write_bytes(content)
    with pytest.raises(StaleHandle), reader.picture(Handle("cam0", 0, 0, 2, 1, 1)):
        pytest.fail("the body must not run")


def test_a_ring_behind_a_link_is_refused(run_dir, ring, reader):
    handle = ring.write(picture())
    os.symlink(ring.path, ring_path(run_dir, "cam0", 9))
    with pytest.raises(StaleHandle), reader.picture(replace(handle, epoch=9)):
        pytest.fail("the body must not run")


def test_a_ring_is_readable_by_its_user_alone(ring):
    assert ring.path.stat().st_mode & 0o777 == 0o600


def test_memory_for_the_whole_ring_is_taken_when_it_is_made(ring):
    stat = ring.path.stat()
    assert stat.st_blocks * 512 >= 3 * ring.slot_bytes
    assert stat.st_blocks * 512 >= stat.st_size


def test_closing_removes_the_file(ring):
    ring.close()
    assert not ring.path.exists()


def test_a_ring_larger_than_the_memory_is_one_clear_error_and_leaves_nothing(run_dir):
    with pytest.raises(ResourceError, match=r"2 slots need .* MB") as caught:
        RingWriter(run_dir, "cam0", 0, slots=2, slot_bytes=1 << 50)
    assert "\n" not in str(caught.value)
    assert list(run_dir.iterdir()) == []


def _make_a_ring_under_a_limit(run_dir, answer):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        RingWriter(run_dir, "cam0", 0, slots=4, slot_bytes=1 << 20)
    except ResourceError as error:
        answer.send(str(error))


def test_no_room_for_a_ring_is_an_error_and_no_sigbus(run_dir):
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_make_a_ring_under_a_limit, args=(run_dir, there))
    child.start()
    there.close()
    text = here.recv()
    child.join()
    assert "shared memory is too small: 4 slots need 4 MB" in text
    assert child.exitcode == 0
    assert list(run_dir.iterdir()) == []
