"""A stand-in for NVIDIA's driver on machines without one: a libcuda.so.1 over host memory, compiled on the spot.

It has one GPU, the AGX's. Addresses are the host's, a queue is worked off at once, and a kernel is found by its name
among those that were compiled as C++ together with it. A file of this name in LD_LIBRARY_PATH is what every binding
opens, so its use of the driver's functions is run for real, argument by argument. It must be in the environment when
the process starts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.host_device import LAUNCHER, PRELUDE

DRIVER = Path(__file__).with_suffix(".cpp")


def make_driver(folder: Path, kernels: str = "", names: tuple[str, ...] = ()) -> dict[str, str]:
    """Compile the stand-in with some kernels and return the environment in which it is the driver."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    text = folder / "driver.cpp"
    text.write_text(PRELUDE + kernels + "".join(LAUNCHER.format(name=name) for name in names) + DRIVER.read_text())
    library = folder / "libcuda.so.1"
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-ffp-contract=off"]
    subprocess.run(["g++", *flags, "-o", str(library), str(text), "-ldl"], check=True)
    return os.environ | {"LD_LIBRARY_PATH": str(folder)}
