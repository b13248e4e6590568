"""The GPU's part played by this machine: derma_common.inference.cuda.Device over host memory, kernels compiled as C++.

One thread of a kernel after the other; everything that the real device queues is done at once.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PRELUDE = """
#include <math.h>
#define __device__
#define __global__
#include <utility>
struct Place { int x, y; };
static Place blockIdx, blockDim, threadIdx;

template <class... A, size_t... I>
static void launch(void (*kernel)(A...), const int* grid, const int* block, void** values, std::index_sequence<I...>) {
    blockDim = {block[0], block[1]};
    for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
            for (threadIdx.y = 0; threadIdx.y < block[1]; threadIdx.y++)
                for (threadIdx.x = 0; threadIdx.x < block[0]; threadIdx.x++) kernel(*(A*)values[I]...);
}
"""
# as cuLaunchKernel takes them: pointers to the arguments
LAUNCHER = """
extern "C" void launch_{name}(const int* grid, const int* block, void** values) {{
    launch({name}, grid, block, values, [&]<class... A>(void (*)(A...)) {{
        return std::index_sequence_for<A...>{{}};
    }}({name}));
}}
"""
C_TYPES: dict[str, Any] = {"uint64": ctypes.c_void_p, "int32": ctypes.c_int, "float32": ctypes.c_float}


@cache
def _library(source: str) -> ctypes.CDLL:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    # no fused multiply-add, as on the GPU
    flags = ["-std=c++20", "-O2", "-shared", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        text.write_text(source)
        subprocess.run(["g++", *flags, "-o", str(library), str(text)], check=True)
        return ctypes.CDLL(str(library))


class HostDevice:
    """A Device whose addresses are those of this process."""

    stream = 0
    sm = "0.0"
    errors = (MemoryError,)

    def __init__(self, registers: bool = True) -> None:
        """`registers`: whether it reads host memory in place."""
        self._registers = registers
        self._kept: list[Any] = []
        self.uploads: list[tuple[int, int]] = []  # address and bytes of the host memory that was copied

    def allocate(self, size: int) -> int:
        memory = np.zeros(size, np.uint8)
        self._kept.append(memory)
        return int(memory.ctypes.data)

    def pinned(self, size: int) -> Any:
        memory = np.zeros(size, np.uint8)
        self._kept.append(memory)
        return memory

    def register(self, memory: Any) -> Callable[[], None] | None:
        if not self._registers:
            return None
        self._kept.append(memory)  # as a device does: the pages stay while they are registered

        def end() -> None:
            self._kept = [kept for kept in self._kept if kept is not memory]

        return end

    def upload(self, target: int, source: Any) -> None:
        assert source.flags.c_contiguous
        self.uploads.append((source.ctypes.data, source.nbytes))
        ctypes.memmove(target, source.ctypes.data, source.nbytes)

    def download(self, target: Any, source: int) -> None:
        ctypes.memmove(target.ctypes.data, source, target.nbytes)

    def kernels(self, source: str, names: Sequence[str]) -> Mapping[str, Any]:
        loaded = _library(PRELUDE + source + "".join(LAUNCHER.format(name=name) for name in names))
        return {name: self._kernel(loaded, name) for name in names}

    def _kernel(self, loaded: ctypes.CDLL, name: str) -> Any:
        function, pair = loaded[f"launch_{name}"], ctypes.c_int * 2

        def run(grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[Any]) -> None:
            values = [C_TYPES[a.dtype.name](a.item()) for a in arguments]
            pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            function(pair(*grid), pair(*block), pointers)

        return run

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        return work

    def record(self) -> int:
        return 0

    def elapsed_ms(self, start: int, end: int) -> float:
        return float(end - start)

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        self._kept.clear()
