"""The GPU's letterbox, crop and normalisation: its kernels, compiled as C++, against derma_common.preprocess."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from support.host_device import HostDevice

from derma_common.errors import ResourceError
from derma_common.inference.card import InputSpec
from derma_common.inference.cuda import compiled
from derma_common.inference.pixels import KERNELS, Pixels
from derma_common.preprocess import cut, letterbox, to_tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEVEL = 1 / (255 * min(STD)) * 1.01  # one step of a uint8 value, after the normalisation


def skin(width, height, seed=0):
    """A picture with edges and noise, so that a pixel taken from the wrong place shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = 120 + 90 * np.sin(x / 7.0) * np.cos(y / 11.0)
    picture = base[..., None] + np.asarray([-30, 0, 30]) + rng.normal(0, 12, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8)


class Bench:
    """A network's input in host memory and the code that fills it."""

    def __init__(self, width, height, max_batch=1, registers=True):
        self.device = HostDevice(registers)
        self.spec = InputSpec("image", width, height, MEAN, STD, max_batch)
        self.size = max_batch * 3 * width * height
        self.target = self.device.allocate(4 * self.size)
        self.pixels = Pixels(self.device, self.spec, self.target)

    def tensor(self):
        out = np.empty(4 * self.size, np.uint8)
        self.device.download(out, self.target)
        return out.view(np.float32).reshape(self.spec.max_batch, 3, self.spec.height, self.spec.width)


@pytest.mark.parametrize(
    ("width", "height"), [(100, 60), (60, 100), (64, 48), (31, 17), (128, 96), (48, 48)],
    ids=["wide", "tall", "same scale", "grows", "halves", "square"],
)  # fmt: skip
def test_the_letterbox_is_that_of_the_cpu(width, height):
    bench, picture = Bench(64, 48), skin(width, height)
    bench.pixels.letterbox(picture)
    fitted, _ = letterbox(picture, 64, 48)
    np.testing.assert_array_equal(bench.tensor(), to_tensor([fitted], MEAN, STD))


SQUARES = {
    "inside, shrinks": (10, 5, 75, 70),
    "inside, a whole multiple": (8, 8, 80, 80),
    "grows": (20, 20, 37, 37),
    "as it is": (4, 4, 28, 28),
    "over the upper left corner": (-20, -13, 40, 47),
    "over the lower right corner": (60, 40, 130, 110),
    "larger than the picture": (-30, -30, 130, 130),
    "one pixel": (50, 50, 51, 51),
}


def test_crops_are_those_of_the_cpu_within_one_level():
    bench, picture = Bench(24, 24, len(SQUARES)), skin(100, 80)
    bench.pixels.crops(picture, list(SQUARES.values()))
    wanted = to_tensor([cut(picture, square, 24) for square in SQUARES.values()], MEAN, STD)
    for name, found, right in zip(SQUARES, bench.tensor(), wanted, strict=True):
        assert np.abs(found - right).max() <= LEVEL, name
        assert (np.abs(found - right) > 1e-6).mean() < 0.02, name


def test_a_window_of_a_larger_picture_is_read_where_it_lies():
    bench, picture = Bench(64, 48), skin(200, 120)
    window = picture[20:90, 50:170]
    bench.pixels.letterbox(window)
    fitted, _ = letterbox(window, 64, 48)
    np.testing.assert_array_equal(bench.tensor(), to_tensor([fitted], MEAN, STD))


def test_a_mirrored_picture_is_copied_first():
    bench, picture = Bench(64, 48), skin(100, 60)[:, ::-1]
    bench.pixels.letterbox(picture)
    fitted, _ = letterbox(np.ascontiguousarray(picture), 64, 48)
    np.testing.assert_array_equal(bench.tensor(), to_tensor([fitted], MEAN, STD))


def test_only_the_rows_of_the_crops_travel_and_no_pixel_twice():
    bench, picture = Bench(24, 24, 2), skin(100, 80)
    bench.pixels.crops(picture, [(10, 30, 40, 60), (50, 35, 70, 55)])
    assert [size for _, size in bench.device.uploads] == [30 * 100 * 3]


@pytest.mark.parametrize("registers", [True, False], ids=["read in place", "through a pinned buffer"])
def test_pictures_of_pinned_memory_travel_without_a_copy(registers):
    bench = Bench(64, 48, registers=registers)
    ring = mmap.mmap(-1, 1 << 16)
    picture = np.frombuffer(ring, np.uint8, 100 * 60 * 3, 4096).reshape(60, 100, 3)
    picture[:] = skin(100, 60)
    end = bench.pixels.pin(ring)
    bench.pixels.letterbox(picture)
    fitted, _ = letterbox(picture, 64, 48)
    np.testing.assert_array_equal(bench.tensor(), to_tensor([fitted], MEAN, STD))
    assert (bench.device.uploads[-1][0] == picture.ctypes.data) == registers
    end()
    bench.pixels.letterbox(picture)
    assert bench.device.uploads[-1][0] != picture.ctypes.data
    del picture, end
    ring.close()  # raises BufferError while anything still points into it


@pytest.mark.parametrize("square", [(100, 0, 120, 20), (-20, 0, 0, 20), (0, 80, 20, 100), (0, -20, 20, 0)])
def test_a_square_outside_the_picture_is_refused(square):
    bench = Bench(24, 24)
    with pytest.raises(ValueError, match="lies outside"):
        bench.pixels.crops(skin(100, 80), [square])


def test_more_crops_than_the_batch_takes_are_refused():
    bench = Bench(24, 24, 2)
    with pytest.raises(ValueError, match="1 to 2 crops at once"):
        bench.pixels.crops(skin(100, 80), [(0, 0, 20, 20)] * 3)
    with pytest.raises(ValueError, match="1 to 2 crops at once"):
        bench.pixels.crops(skin(100, 80), [])


@pytest.mark.parametrize("sm", ["7.5", "9.0"])
def test_the_kernels_compile_for_gpus(sm):
    pytest.importorskip("cuda.bindings.nvrtc")
    code = compiled(KERNELS.read_text(), sm)
    assert code[:4] == b"\x7fELF"
    assert b"letterbox" in code
    assert b"crop" in code


def test_a_kernel_that_does_not_compile_is_one_line():
    pytest.importorskip("cuda.bindings.nvrtc")
    with pytest.raises(ResourceError, match="NVRTC cannot compile") as caught:
        compiled('extern "C" __global__ void f() { return nothing; }', "7.5")
    assert "\n" not in str(caught.value)
