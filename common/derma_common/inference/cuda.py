"""The GPU's memory, streams, kernels and graphs behind one small class; the only file that knows a binding to CUDA.

pycuda is taken where it is installed (it is built in NVIDIA's containers), else cuda-bindings, which has wheels. Both
wrap the CUDA driver's functions; `open_device` gives the same class over either. Everything is queued on one stream
and is done when `synchronize` returns.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from derma_common.errors import ResourceError

Bytes = npt.NDArray[np.uint8]
Kernel = Callable[[tuple[int, int], tuple[int, int], Sequence["np.generic"]], None]  # grid, block, arguments
# a multiplication and an addition stay two roundings, as on the CPU
COMPILE_OPTIONS = ("--fmad=false",)
_READ_ONLY = 0x08  # CU_MEMHOSTREGISTER_READ_ONLY


class Device(Protocol):
    """One GPU, opened by this process, with one stream. An address is a number: of the device's memory."""

    stream: int  # the handle that TensorRT takes
    sm: str
    errors: tuple[type[Exception], ...]  # what any of these raises when the GPU fails

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes, kept until close."""
        ...

    def pinned(self, size: int) -> Bytes:
        """Return `size` bytes of host memory that the GPU can read and write by itself, kept until close."""
        ...

    def register(self, memory: Bytes) -> Callable[[], None] | None:
        """Let the GPU read host memory in place; returns what ends that, None where the device does not allow it."""
        ...

    def upload(self, target: int, source: Bytes) -> None:
        """Queue a copy of contiguous host memory to the device; `source` must live until synchronize."""
        ...

    def download(self, target: Bytes, source: int) -> None:
        """Queue a copy from the device into contiguous host memory."""
        ...

    def kernels(self, source: str, names: Sequence[str]) -> Mapping[str, Kernel]:
        """Compile CUDA C++ and return its kernels; calling one queues it. Raises ResourceError with the first error."""
        ...

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what queues `work` as one CUDA graph; `work` itself where graphs cannot be had."""
        ...

    def record(self) -> Any:
        """Queue a mark in time."""
        ...

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Return the time between two marks that have been passed."""
        ...

    def synchronize(self) -> None:
        """Wait until everything that was queued is done."""
        ...

    def close(self) -> None:
        """Free everything; a second call does nothing."""
        ...


def open_device(index: int) -> Device:
    """Open GPU number `index` with the binding that is installed. Raises ResourceError when it cannot be opened."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # GPU 1 is nvidia-smi's 1, as in the probe
    try:
        from pycuda import driver
    except ImportError:
        return _CudaBindings(index)
    return _Pycuda(driver, index)


class _Pycuda:
    """The device through pycuda; it has no graphs."""

    def __init__(self, driver: Any, index: int) -> None:
        self._driver = driver
        self.errors: tuple[type[Exception], ...] = (driver.Error,)
        try:
            driver.init()
            device = driver.Device(index)
            self._context = device.retain_primary_context()
            self._context.push()
        except driver.Error as error:
            raise ResourceError(f"GPU {index} cannot be opened: {error}") from error
        self.sm = "{}.{}".format(*device.compute_capability())
        self._stream = driver.Stream()
        self.stream = int(self._stream.handle)
        self._kept: list[Any] = []

    def allocate(self, size: int) -> int:
        memory = self._driver.mem_alloc(size)
        self._kept.append(memory)
        return int(memory)

    def pinned(self, size: int) -> Bytes:
        array: Bytes = self._driver.pagelocked_empty(size, np.uint8)
        return array

    def register(self, memory: Bytes) -> Callable[[], None] | None:
        # not pycuda's register_host_memory: it crashes with NumPy of today (pycuda 2026.1 sets an array's base twice)
        library, address = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(memory.ctypes.data)
        if library.cuMemHostRegister_v2(address, ctypes.c_size_t(memory.nbytes), _READ_ONLY):
            return None
        return lambda: library.cuMemHostUnregister(address)

    def upload(self, target: int, source: Bytes) -> None:
        self._driver.memcpy_htod_async(target, source, self._stream)

    def download(self, target: Bytes, source: int) -> None:
        self._driver.memcpy_dtoh_async(target, source, self._stream)

    def kernels(self, source: str, names: Sequence[str]) -> Mapping[str, Kernel]:
        from pycuda.compiler import SourceModule

        try:
            module = SourceModule(source, options=list(COMPILE_OPTIONS), no_extern_c=True)
        except self._driver.CompileError as error:
            raise ResourceError(f"nvcc cannot compile the GPU's kernels: {str(error)[:300]}") from error
        self._kept.append(module)
        return {name: self._kernel(module.get_function(name)) for name in names}

    def _kernel(self, function: Any) -> Kernel:
        def queue(grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[np.generic]) -> None:
            function(*arguments, grid=grid, block=(*block, 1), stream=self._stream)

        return queue

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        return work

    def record(self) -> Any:
        event = self._driver.Event()
        event.record(self._stream)
        return event

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(end.time_since(start))

    def synchronize(self) -> None:
        self._stream.synchronize()

    def close(self) -> None:
        if self._context is not None:
            self._kept.clear()
            self._context.pop()
            self._context = None


_CTYPES: dict[str, Any] = {"uint64": ctypes.c_void_p, "int32": ctypes.c_int, "float32": ctypes.c_float}


class _CudaBindings:
    """The device through cuda-bindings."""

    errors: tuple[type[Exception], ...] = (RuntimeError,)

    def __init__(self, index: int) -> None:
        try:
            from cuda.bindings import driver
        except ImportError:
            raise ResourceError("no binding to CUDA is installed: pip install 'derma[gpu]'") from None
        self._driver: Any = driver
        self._closing: list[Callable[[], Any]] = []
        try:
            self._call("cuInit", 0)
            device = self._call("cuDeviceGet", index)
            context = self._call("cuDevicePrimaryCtxRetain", device)
        except RuntimeError as error:  # ours, or the bindings' own where there is no driver
            raise ResourceError(f"GPU {index} cannot be opened: {error}") from error
        self._closing.append(lambda: self._call("cuDevicePrimaryCtxRelease", device))
        self._call("cuCtxSetCurrent", context)
        attribute = driver.CUdevice_attribute
        major = self._call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
        minor = self._call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
        self.sm = f"{major}.{minor}"
        self._stream = self._call("cuStreamCreate", int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self._closing.append(lambda: self._call("cuStreamDestroy", self._stream))
        self.stream = int(self._stream)

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call a driver's function and return its results. Raises RuntimeError with the driver's words."""
        status, *results = getattr(self._driver, function)(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{function} answers {status.name}")
        return results[0] if len(results) == 1 else results

    def allocate(self, size: int) -> int:
        memory = self._call("cuMemAlloc", size)
        self._closing.append(lambda: self._call("cuMemFree", memory))
        return int(memory)

    def pinned(self, size: int) -> Bytes:
        address = self._call("cuMemHostAlloc", size, 0)
        self._closing.append(lambda: self._call("cuMemFreeHost", address))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(address)))

    def register(self, memory: Bytes) -> Callable[[], None] | None:
        address = memory.ctypes.data
        try:
            self._call("cuMemHostRegister", address, memory.nbytes, _READ_ONLY)
        except RuntimeError:
            return None
        return lambda: self._call("cuMemHostUnregister", address)

    def upload(self, target: int, source: Bytes) -> None:
        self._call("cuMemcpyHtoDAsync", target, source.ctypes.data, source.nbytes, self._stream)

    def download(self, target: Bytes, source: int) -> None:
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, source, target.nbytes, self._stream)

    def kernels(self, source: str, names: Sequence[str]) -> Mapping[str, Kernel]:
        module = self._call("cuModuleLoadData", compiled(source, self.sm))
        self._closing.append(lambda: self._call("cuModuleUnload", module))
        return {name: self._kernel(self._call("cuModuleGetFunction", module, name.encode())) for name in names}

    def _kernel(self, function: Any) -> Kernel:
        def queue(grid: tuple[int, int], block: tuple[int, int], arguments: Sequence[np.generic]) -> None:
            values = tuple(argument.item() for argument in arguments)
            kinds = tuple(_CTYPES[argument.dtype.name] for argument in arguments)
            self._call("cuLaunchKernel", function, *grid, 1, *block, 1, 0, self._stream, (values, kinds), 0)

        return queue

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        # only this thread's calls are watched: others may allocate meanwhile
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            work()
        finally:
            graph = self._call("cuStreamEndCapture", self._stream)
        launched = self._call("cuGraphInstantiate", graph, 0)
        self._call("cuGraphDestroy", graph)
        self._closing.append(lambda: self._call("cuGraphExecDestroy", launched))
        return lambda: self._call("cuGraphLaunch", launched, self._stream)

    def record(self) -> Any:
        event = self._call("cuEventCreate", 0)
        self._closing.append(lambda: self._call("cuEventDestroy", event))
        self._call("cuEventRecord", event, self._stream)
        return event

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._call("cuEventElapsedTime", start, end))

    def synchronize(self) -> None:
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        while self._closing:
            self._closing.pop()()


def compiled(source: str, sm: str) -> bytes:
    """Return the machine code of CUDA C++ for a compute capability ("7.5"), made by NVRTC; this needs no GPU.

    Raises ResourceError when NVRTC is missing, or with the compiler's words.
    """
    try:
        from cuda.bindings import nvrtc

        version, *_ = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise ResourceError(f"NVRTC cannot be used ({str(error)[:200]}): pip install nvidia-cuda-nvrtc") from error
    good = nvrtc.nvrtcResult.NVRTC_SUCCESS
    assert version == good
    _, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], [])
    options = [f"--gpu-architecture=sm_{sm.replace('.', '')}".encode(), *(o.encode() for o in COMPILE_OPTIONS)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if status != good:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        said = b" " * size
        nvrtc.nvrtcGetProgramLog(program, said)
        nvrtc.nvrtcDestroyProgram(program)
        text = " ".join(said.decode(errors="replace").strip("\0").split())
        raise ResourceError(f"NVRTC cannot compile the GPU's kernels: {text[:300]}")
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    code: bytes = b" " * size
    nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return code
