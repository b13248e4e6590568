"""What NVML says of this machine's GPUs; nothing where there is none or `nvidia-ml-py` (extra `observe`) is missing."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

log = logging.getLogger(__name__)
Row = tuple[str, tuple[str, ...], float]  # metric, values of its labels, value


def open_gpus() -> Callable[[], Iterator[Row]]:
    """Open NVML and return what reads the GPUs' rows; the driver is asked once whether there is anything to read."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return lambda: iter(())
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        log.info("no GPU is shown in the metrics: %s", error)
        return lambda: iter(())
    return lambda: _rows(nvml, handles)


def _rows(nvml: Any, handles: list[Any]) -> Iterator[Row]:
    for index, handle in enumerate(handles):
        gpu = (str(index),)
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            yield "derma_gpu_memory_used_bytes", gpu, memory.used
            yield "derma_gpu_memory_size_bytes", gpu, memory.total
            yield "derma_gpu_busy_ratio", gpu, nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            yield (
                "derma_gpu_temperature_celsius", gpu, nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            )  # fmt: skip
            yield "derma_gpu_power_watts", gpu, nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        except nvml.NVMLError:  # a GPU that lacks a sensor, or was taken away: what it gave is shown
            continue
