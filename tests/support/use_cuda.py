"""Everything that derma asks of a CUDA device, once: a program that tells what came of it as one JSON object.

`python -m support.use_cuda`, on a GPU or with the stand-in driver in LD_LIBRARY_PATH.
"""

from __future__ import annotations

import ctypes
import json
import mmap

import numpy as np

from derma_common.inference.card import InputSpec
from derma_common.inference.cuda import open_device
from derma_common.inference.pixels import Pixels
from derma_common.preprocess import cut, letterbox, to_tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Use a device in every way and print what was found."""
    device = open_device(0)
    spec = InputSpec("image", 64, 64, MEAN, STD, max_batch=2)
    size = spec.max_batch * 3 * spec.width * spec.height
    target = device.allocate(size * 4)
    pixels = Pixels(device, spec, target)
    host = device.pinned(size * 4)

    def tensor() -> np.ndarray:
        device.download(host, target)
        device.synchronize()
        return host.view(np.float32).reshape(2, 3, 64, 64).copy()

    memory = mmap.mmap(-1, 1 << 16)
    picture = np.frombuffer(memory, np.uint8, 120 * 90 * 3).reshape(90, 120, 3)
    picture[:] = np.random.default_rng(0).integers(0, 256, picture.shape, dtype=np.uint8)
    start = device.record()
    pixels.letterbox(picture)
    boxed = tensor()[0]
    unpin = pixels.pin(memory)
    squares = [(5, 5, 85, 85), (-20, 40, 60, 120)]
    pixels.crops(picture, squares)
    cropped = tensor()
    again = device.captured(lambda: pixels.letterbox(picture))
    again()
    end = device.record()
    device.synchronize()
    elapsed_ms = device.elapsed_ms(start, end)
    unpin()
    fitted, _ = letterbox(picture, 64, 64)
    crops = to_tensor([cut(picture, square, 64) for square in squares], MEAN, STD)
    device.close()
    device.close()
    driver = ctypes.CDLL("libcuda.so.1")
    names = [name for name in ("launches", "allocated") if hasattr(driver, f"stand_in_{name}")]
    counts = {name: getattr(driver, f"stand_in_{name}")() for name in names}
    print(
        json.dumps(counts | {
            "sm": device.sm,
            "binding": type(device).__name__,
            "letterbox_differs": float(np.abs(boxed - to_tensor([fitted], MEAN, STD)[0]).max()),
            "crops_differ": float(np.abs(cropped - crops).max()),
            "elapsed_ms": elapsed_ms,
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
