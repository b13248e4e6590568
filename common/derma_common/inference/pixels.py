"""Pictures as they are onto the GPU, and into a network's input there: only uint8 pixels travel, in one copy each."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from derma_common.inference.card import InputSpec
from derma_common.inference.cuda import Bytes, Device
from derma_common.preprocess import LETTERBOX_GREY, Image, normalisation, placement

KERNELS = Path(__file__).with_name("kernels.cu")
_BLOCK = (16, 16)
_FLOAT_BYTES = 4


class Pixels:
    """Fills the input of a network at a device address from pictures in host memory."""

    def __init__(self, device: Device, spec: InputSpec, target: int) -> None:
        """`target` is the address of (max_batch, 3, height, width) float32. Raises ResourceError, as Device.kernels."""
        self._device, self._spec, self._target = device, spec, target
        self._kernels = device.kernels(KERNELS.read_text(encoding="utf-8"), ("letterbox", "crop"))
        factor, shift = normalisation(spec.mean, spec.std)
        self._normalisation = [*factor.astype(np.float32), *shift.astype(np.float32)]
        self._memory = 0  # the device's, for one picture
        self._staging = np.empty(0, np.uint8)
        self._pinned: dict[int, int] = {}  # address -> bytes of host memory that the GPU reads in place

    def letterbox(self, image: Image) -> None:
        """Queue image (H, W, 3) uint8 BGR into the first place of the batch, as preprocess.letterbox."""
        rows, columns = image.shape[:2]
        spec = self._spec
        placed = placement(columns, rows, spec.width, spec.height)
        address, pitch = self._upload(image, 0, rows)
        where = (
            spec.width, spec.height, placed.inner_w_px, placed.inner_h_px, placed.left_px, placed.top_px, LETTERBOX_GREY
        )  # fmt: skip
        self._launch("letterbox", (address, pitch, columns, rows), self._target, where)

    def crops(self, image: Image, squares: Sequence[Sequence[int]]) -> None:
        """Queue squares (x1, y1, x2, y2) px of image (H, W, 3) uint8 BGR into the batch, as preprocess.cut.

        Raises ValueError when one lies outside the picture or there are more than the batch takes.
        """
        rows, columns = image.shape[:2]
        if not 1 <= len(squares) <= self._spec.max_batch:
            raise ValueError(f"the network takes 1 to {self._spec.max_batch} crops at once, got {len(squares)}")
        for x1, y1, x2, y2 in squares:
            if x2 <= 0 or y2 <= 0 or x1 >= columns or y1 >= rows:
                raise ValueError(f"square {x1},{y1},{x2},{y2} lies outside the {columns}x{rows} picture")
        # of a picture with few lesions only the rows between the first and the last of them are needed
        first = max(0, min(square[1] for square in squares))
        last = min(rows, max(square[3] for square in squares))
        address, pitch = self._upload(image, first, last)
        size = self._spec.width
        for i, (x1, y1, x2, _) in enumerate(squares):
            target = self._target + i * 3 * size * size * _FLOAT_BYTES
            self._launch("crop", (address, pitch, columns, last - first), target, (x1, y1 - first, x2 - x1, size))

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        """Let the GPU read `memory` in place where it can; returns what ends that."""
        view: Bytes = np.frombuffer(memory, dtype=np.uint8)
        release = self._device.register(view)
        if release is None:
            return lambda: None
        address = view.ctypes.data
        self._pinned[address] = view.nbytes

        def end() -> None:
            self._device.synchronize()
            del self._pinned[address]
            release()

        return end

    def _launch(self, kernel: str, picture: tuple[int, int, int, int], target: int, where: Sequence[int]) -> None:
        """Queue a kernel over the input; `picture` is its address, pitch, columns and rows."""
        grid = (-(-self._spec.width // _BLOCK[0]), -(-self._spec.height // _BLOCK[1]))
        address, *shape = picture
        numbers: list[np.generic] = [np.uint64(address), *(np.int32(n) for n in shape), np.uint64(target)]
        arguments = [*numbers, *(np.int32(n) for n in where), *self._normalisation]
        self._kernels[kernel](grid, _BLOCK, arguments)

    def _upload(self, image: Image, first: int, last: int) -> tuple[int, int]:
        """Queue rows [first, last) of a picture in one copy; returns the first one's address and the bytes to the next.

        A window of a larger picture travels with what lies beside it: one long copy is faster than many short ones.
        """
        part = image[first:last]
        pitch = part.strides[0]
        if part.strides[1:] != (3, 1) or pitch < part.shape[1] * 3:
            part = np.ascontiguousarray(part)
            pitch = part.strides[0]
        size = pitch * (len(part) - 1) + part.shape[1] * 3
        flat: Bytes = np.lib.stride_tricks.as_strided(part, shape=(size,), strides=(1,), writeable=False)
        if len(self._staging) < size:
            self._memory = self._device.allocate(size)
            self._staging = self._device.pinned(size)
        if not self._is_pinned(flat):
            # the GPU may still be reading the last picture
            self._device.synchronize()
            np.copyto(self._staging[:size], flat)
            flat = self._staging[:size]
        self._device.upload(self._memory, flat)
        return self._memory, pitch

    def _is_pinned(self, flat: Bytes) -> bool:
        address = flat.ctypes.data
        return any(start <= address and address + flat.nbytes <= start + size for start, size in self._pinned.items())
