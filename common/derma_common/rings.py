"""Rings of picture slots in shared memory: capture writes, detector and classifiers read in place.

One file per camera and epoch in the run's own 0700 directory on /dev/shm: a page of header, a table
with one generation per slot, then the slots. The file is allocated in full when it is made, so a full memory
is an error at that moment and not a SIGBUS later. A larger picture opens a ring of a new epoch.

The credit is the lock: capture reuses a slot only after its frame has an outcome. The generation is the
tripwire: it is odd while a slot is written and checked after the pixels were used, so a mistake
anywhere becomes a StaleHandle and never a wrong picture.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from derma_common.errors import ResourceError, StaleHandle
from derma_common.messages import Handle
from derma_common.preprocess import Image
from derma_common.settings import CAMERA_NAME

_HEADER = struct.Struct("<8sIIQ")  # magic, slots, version, bytes per slot
_MAGIC = b"dermarng"
_VERSION = 1
_PAGE = 4096
Pin = Callable[[mmap.mmap], Callable[[], None]]  # lets a GPU read mapped memory in place; returns what ends that


def ring_path(directory: Path, camera: str, epoch: int) -> Path:
    """Return the file of a camera's ring. `camera` was checked when the configuration was read."""
    return directory / f"ring-{camera}-{epoch}"


def _slot_stride(slot_bytes: int) -> int:
    return -(-slot_bytes // _PAGE) * _PAGE


class RingWriter:
    """The owning end of a ring: allocates the file, writes pictures, unlinks the file when closed."""

    def __init__(self, directory: Path, camera: str, epoch: int, slots: int, slot_bytes: int) -> None:
        """Allocate `slots` of `slot_bytes` each. Raises ResourceError when shared memory is too small."""
        self.camera, self.epoch, self.slots, self.slot_bytes = camera, epoch, slots, slot_bytes
        self.path = ring_path(directory, camera, epoch)
        stride = _slot_stride(slot_bytes)
        size = _PAGE + _PAGE * -(-slots * 8 // _PAGE) + slots * stride
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            self._map = mmap.mmap(descriptor, size)
        except OSError as error:
            self.path.unlink()
            raise _no_room(error, directory, size, slots) from error
        finally:
            os.close(descriptor)
        self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, slots, _VERSION, slot_bytes)
        self._generations = np.frombuffer(self._map, dtype=np.uint64, count=slots, offset=_PAGE)
        self._pixels = _PAGE + _PAGE * -(-slots * 8 // _PAGE)
        self._stride = stride
        self._free = list(range(slots - 1, -1, -1))

    @property
    def free(self) -> int:
        """How many slots can be written."""
        return len(self._free)

    def fits(self, image: Image) -> bool:
        """Say whether a picture (H, W, 3) uint8 goes into a slot of this ring."""
        return image.nbytes <= self.slot_bytes

    def write(self, image: Image) -> Handle:
        """Copy image (H, W, 3) uint8 BGR into a free slot. Raises IndexError when none is free."""
        slot = self._free.pop()
        generation = int(self._generations[slot]) + 1
        self._generations[slot] = generation  # odd: being written
        target = np.frombuffer(self._map, dtype=np.uint8, count=image.nbytes, offset=self._pixels + slot * self._stride)
        np.copyto(target.reshape(image.shape), image)
        self._generations[slot] = generation + 1
        return Handle(self.camera, self.epoch, slot, generation + 1, image.shape[0], image.shape[1])

    def view(self, handle: Handle) -> Image:
        """Return the pixels behind a handle of this ring, in place."""
        return _view(self._map, self._pixels + handle.slot * self._stride, handle)

    def release(self, handle: Handle) -> None:
        """Give a slot back; its pixels may be overwritten from now on."""
        if handle.epoch != self.epoch or handle.slot in self._free:
            raise ValueError(f"slot {handle.slot} of epoch {handle.epoch} is not held")
        self._free.append(handle.slot)

    def close(self) -> None:
        """Unlink the file; readers that have it open keep their pictures until they drop it."""
        self.path.unlink(missing_ok=True)
        del self._generations
        _close_map(self._map)


class RingReader:
    """Opens rings as handles name them and reads pictures in place."""

    def __init__(self, directory: Path, pin: Pin | None = None) -> None:
        """`pin` is called for every ring that is opened."""
        self._directory, self._pin = directory, pin
        self._open: dict[str, _OpenRing] = {}

    @contextmanager
    def picture(self, handle: Handle) -> Iterator[Image]:
        """Yield the picture behind a handle, (H, W, 3) uint8 BGR, read-only and in place.

        Raises StaleHandle on entry when the slot already holds another picture, and on exit when it
        was overwritten while it was used: then whatever was computed from it must be thrown away.
        """
        ring = self._ring(handle)
        ring.check(handle)
        yield _view(ring.map, ring.pixels + handle.slot * ring.stride, handle)
        ring.check(handle)

    def _ring(self, handle: Handle) -> _OpenRing:
        ring = self._open.get(handle.camera)
        if ring is None or ring.epoch != handle.epoch:
            if not CAMERA_NAME.match(handle.camera):  # it becomes part of a path
                raise StaleHandle(f"no camera is called {handle.camera[:40]!r}")
            fresh = _OpenRing(ring_path(self._directory, handle.camera, handle.epoch), handle.epoch, self._pin)
            if ring is not None:
                ring.close()
            self._open[handle.camera] = ring = fresh
        return ring

    def close(self) -> None:
        """Close every ring."""
        for ring in self._open.values():
            ring.close()
        self._open.clear()


class _OpenRing:
    def __init__(self, path: Path, epoch: int, pin: Pin | None) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            raise StaleHandle(f"the ring {path.name} is gone") from None
        try:
            if os.fstat(descriptor).st_size < _PAGE:
                raise StaleHandle(f"{path.name} is no ring")
            self.map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        magic, self.slots, version, self.slot_bytes = _HEADER.unpack_from(self.map)
        if magic != _MAGIC or version != _VERSION:
            raise StaleHandle(f"{path.name} is no ring of version {_VERSION}")
        self.epoch = epoch
        self.stride = _slot_stride(self.slot_bytes)
        self.pixels = _PAGE + _PAGE * -(-self.slots * 8 // _PAGE)
        self._generations: npt.NDArray[np.uint64] | None = np.frombuffer(
            self.map, dtype=np.uint64, count=self.slots, offset=_PAGE
        )
        self._unpin = pin(self.map) if pin else None

    def check(self, handle: Handle) -> None:
        fits = 0 <= handle.slot < self.slots and handle.height > 0 and handle.width > 0
        if not fits or handle.height * handle.width * 3 > self.slot_bytes:
            raise StaleHandle(f"no such slot or shape in {handle.camera}'s ring: {handle}")
        assert self._generations is not None
        found = int(self._generations[handle.slot])
        if found != handle.generation:
            raise StaleHandle(
                f"slot {handle.slot} of {handle.camera} holds generation {found}, not {handle.generation}"
            )

    def close(self) -> None:
        if self._unpin:
            self._unpin()
            self._unpin = None
        self._generations = None
        _close_map(self.map)


def _view(memory: mmap.mmap, offset: int, handle: Handle) -> Image:
    flat = np.frombuffer(memory, dtype=np.uint8, count=handle.height * handle.width * 3, offset=offset)
    return flat.reshape(handle.height, handle.width, 3)


def _close_map(memory: mmap.mmap) -> None:
    try:
        memory.close()
    except BufferError:
        # somebody still holds a view: the memory goes when the last view does
        return


def _no_room(error: OSError, directory: Path, size: int, slots: int) -> ResourceError:
    if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
        return ResourceError(f"cannot allocate {size / 1e6:.0f} MB in {directory}: {error.strerror}")
    stats = os.statvfs(directory)
    return ResourceError(
        f"shared memory is too small: {slots} slots need {size / 1e6:.0f} MB in {directory}, "
        f"{stats.f_bavail * stats.f_frsize / 1e6:.0f} MB are free; enlarge it (docker: --shm-size) "
        "or lower capture.window"
    )
