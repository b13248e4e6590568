"""What of NVIDIA can be used here: found out in a child process, because these libraries may crash without a driver.

`python -m derma_common.inference.probe` is the child. It says on stdout what it is about to try, then what it found, a
JSON object a line, so that even its crash names the library.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

PATIENCE_S = 60.0  # a GPU that sleeps takes seconds to wake
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver names it; `sm` is its compute capability, such as "7.5"."""

    index: int
    name: str
    sm: str
    memory_bytes: int


@dataclass(frozen=True)
class Report:
    """What can be used; empty where there is nothing. `problems` says why, one line each."""

    driver: str = ""  # CUDA's version, then the driver's own where it says so: "13.0 (580.65.06)"
    gpus: tuple[Gpu, ...] = ()
    tensorrt: str = ""  # flavour and version, such as "tensorrt-rtx 1.7.1.116"
    binding: str = ""  # "pycuda" or "cuda-bindings"
    providers: tuple[str, ...] = ()  # ONNX Runtime's
    problems: tuple[str, ...] = ()


@cache
def probe() -> Report:
    """Return what of NVIDIA can be used by this process and its children; asked once."""
    command = [sys.executable, "-m", "derma_common.inference.probe"]
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # GPU 1 is nvidia-smi's 1
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, env=os.environ | order
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        return _report(said.decode(errors="replace") if isinstance(said, bytes) else said, "did not come back")
    if child.returncode == 0:
        return _report(child.stdout, "")
    how = f"exit status {child.returncode}"
    if child.returncode < 0:
        how = signal.Signals(-child.returncode).name
    return _report(child.stdout, f"crashed ({how})")


def _report(said: str, end: str) -> Report:
    """Put the child's lines together; `end` says how it ended, empty when well."""
    found: dict[str, Any] = {}
    problems: list[str] = []
    trying = "the probe"
    for line in said.splitlines():
        if not line.startswith("{"):  # what a library says on stdout
            continue
        row = json.loads(line)
        trying = row.pop("trying", trying)
        if "problem" in row:
            problems.append(f"{trying}: {row.pop('problem')}")
        found |= row
    if end:
        problems.append(f"{trying} {end} when it was tried")
    gpus = tuple(Gpu(**gpu) for gpu in found.pop("gpus", ()))
    providers = tuple(found.pop("providers", ()))
    return Report(**found, gpus=gpus, providers=providers, problems=tuple(problems))


def _tries() -> Iterator[dict[str, Any]]:
    """Yield what is about to be tried and what came of it; nothing after a step without which the rest cannot work."""
    yield {"trying": "NVIDIA's driver"}
    try:
        found = _driver()
    except (OSError, RuntimeError) as error:
        yield {"problem": str(error)}
        return
    yield found
    yield {"trying": "a CUDA binding"}
    yield _binding()
    yield {"trying": "TensorRT"}
    yield _tensorrt()
    yield {"trying": "ONNX Runtime"}
    providers = importlib.import_module("onnxruntime").get_available_providers()
    yield {"providers": providers}


def _driver() -> dict[str, Any]:
    """Ask the driver for its version and its GPUs. Raises OSError or RuntimeError with the reason why it cannot."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise OSError("not installed (there is no libcuda.so.1)") from None
    version, count = ctypes.c_int(), ctypes.c_int()
    _call(cuda, "cuInit", 0)
    _call(cuda, "cuDriverGetVersion", ctypes.byref(version))
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    gpus = [_gpu(cuda, index) for index in range(count.value)]
    if not gpus:
        raise RuntimeError("it sees no GPU")
    own = _driver_version()
    return {
        "driver": f"{version.value // 1000}.{version.value % 1000 // 10}" + (f" ({own})" if own else ""), "gpus": gpus,
    }  # fmt: skip


def _gpu(cuda: Any, index: int) -> dict[str, Any]:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    _call(cuda, "cuDeviceGet", ctypes.byref(device), index)
    _call(cuda, "cuDeviceGetName", name, len(name), device)
    _call(cuda, "cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
    _call(cuda, "cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    sm = f"{major.value}.{minor.value}"
    return {"index": index, "name": name.value.decode(errors="replace"), "sm": sm, "memory_bytes": memory.value}


def _call(cuda: Any, function: str, *arguments: Any) -> None:
    status = getattr(cuda, function)(*arguments)
    if status:
        said = ctypes.c_char_p()
        known = cuda.cuGetErrorString(status, ctypes.byref(said)) == 0 and said.value
        raise RuntimeError(f"{function} answers {said.value.decode() if known and said.value else status}")


def _driver_version() -> str:
    """Return the version of the driver itself through NVML, which comes with it; Tegra's has none."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ""
    text = ctypes.create_string_buffer(80)
    if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(text, len(text)):
        return ""
    return text.value.decode(errors="replace")


def _binding() -> dict[str, Any]:
    said = []
    for name, module in (("pycuda", "pycuda.driver"), ("cuda-bindings", "cuda.bindings.driver")):
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            said.append(f"{name}: {_line(error)}")
            continue
        return {"binding": name}
    return {"problem": "; ".join(said)}


def _tensorrt() -> dict[str, Any]:
    said = []
    for name, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        try:
            library: Any = importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            said.append(f"{name}: {_line(error)}")
            continue
        library.Runtime(library.Logger(library.Logger.INTERNAL_ERROR))
        return {"tensorrt": f"{name} {library.__version__}"}
    return {"problem": "; ".join(said)}


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


if __name__ == "__main__":
    for row in _tries():
        print(json.dumps(row), flush=True)
