"""One contract for the bindings to CUDA: on a GPU where there is one, else over a stand-in for the driver."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.stand_in_driver import make_driver

from derma_common.errors import ResourceError
from derma_common.inference.cuda import open_device
from derma_common.inference.pixels import KERNELS
from derma_common.inference.probe import probe

LEVEL = 1 / (255 * 0.224) * 1.01  # one step of a uint8 value, after the normalisation
TESTS = Path(__file__).parents[1]


def use(environment):
    """Run the program that uses a device and return what it tells."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.run(
        [sys.executable, "-m", "support.use_cuda"], env=environment | {"PYTHONPATH": path}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    pytest.importorskip("cuda.bindings.nvrtc")
    return make_driver(tmp_path_factory.mktemp("driver"), KERNELS.read_text(), ("letterbox", "crop"))


@pytest.mark.parametrize("refuses", [False, True], ids=["host memory is read in place", "registration is refused"])
def test_the_bindings_do_what_the_device_promises(driver, refuses):
    told = use(driver | ({"STAND_IN_REFUSES": "1"} if refuses else {}))
    assert told["sm"] == "7.5"
    assert told["letterbox_differs"] == 0
    assert told["crops_differ"] <= LEVEL
    assert told["elapsed_ms"] == 2.5
    assert told["launches"] == 1 + 2 + 1 + 100, "letterbox, two crops, one captured, one graph"
    assert told["allocated"] == 0


def test_a_gpu_does_what_the_device_promises():
    if not probe().gpus or not probe().binding:
        pytest.skip("; ".join(probe().problems))
    told = use(dict(os.environ))
    assert told["sm"] == probe().gpus[0].sm
    assert told["letterbox_differs"] <= LEVEL
    assert told["crops_differ"] <= LEVEL
    assert told["elapsed_ms"] > 0


def test_without_a_driver_opening_is_one_line():
    pytest.importorskip("cuda.bindings.driver")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        with pytest.raises(ResourceError, match="GPU 0 cannot be opened") as caught:
            open_device(0)
        assert "\n" not in str(caught.value)
    else:
        pytest.skip("this machine has a driver")
