"""The rings of one camera over time: a larger picture or a wider window opens a ring of a new epoch."""

from __future__ import annotations

from pathlib import Path

from derma_common.messages import Handle
from derma_common.preprocess import Image
from derma_common.rings import RingWriter


class Slots:
    """Writes pictures into the current ring and unlinks old rings when their last slot is free."""

    def __init__(self, directory: Path, camera: str, incarnation: int) -> None:
        """Remove the rings of a dead predecessor and start with none."""
        self._directory, self._camera = directory, camera
        self._next_epoch = incarnation << 16
        self._rings: list[RingWriter] = []
        for old in directory.glob(f"ring-{camera}-*"):
            if old.name.removeprefix(f"ring-{camera}-").isdecimal():  # not the ring of a camera called camera-left
                old.unlink()

    def write(self, image: Image, window: int) -> Handle:
        """Write a picture, with room for `window` of its kind. Raises ResourceError when memory is short."""
        if not self._rings or not self._rings[-1].fits(image) or self._rings[-1].slots < window:
            self._rings.append(RingWriter(self._directory, self._camera, self._next_epoch, window, image.nbytes))
            self._next_epoch += 1
            self._drop_idle()
        return self._rings[-1].write(image)

    def release(self, handle: Handle) -> None:
        """Give a slot back."""
        for ring in self._rings:
            if ring.epoch == handle.epoch:
                ring.release(handle)
        self._drop_idle()

    def _drop_idle(self) -> None:
        for ring in self._rings[:-1]:
            if ring.free == ring.slots:
                ring.close()
                self._rings.remove(ring)

    @property
    def counts(self) -> tuple[int, int]:
        """Slots in all, and how many are free."""
        return sum(r.slots for r in self._rings), sum(r.free for r in self._rings)

    def close(self) -> None:
        """Unlink everything."""
        for ring in self._rings:
            ring.close()
        self._rings.clear()
