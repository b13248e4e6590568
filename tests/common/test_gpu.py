"""GPUs in the metrics: read through NVML's functions, and nothing where there is none."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from derma_common.contract import CONTRACT
from derma_common.gpu import open_gpus
from derma_common.telemetry import SupervisorMetrics, samples


class NVMLError(Exception):
    pass


def nvml(gpus, **changes):
    """Return a module with the functions of NVML that are used, as nvidia-ml-py has them."""

    def handle(index):
        return index

    functions = {
        "NVMLError": NVMLError,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: gpus,
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=2**30 * (handle + 1), total=2**34, free=0),
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=37, memory=5),
        "nvmlDeviceGetTemperature": lambda handle, sensor: 61,
        "nvmlDeviceGetPowerUsage": lambda handle: 71_500,
    }
    module = types.ModuleType("pynvml")
    for name, function in (functions | changes).items():
        setattr(module, name, function)
    return module


def fail(*_):
    raise NVMLError("not supported")


def test_every_gpu_is_shown_in_units_of_the_contract(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml(2))
    supervisor = SupervisorMetrics("1.0", dict, list)
    shown = {s.name: s for s in samples(generate_latest(supervisor.registry).decode()) if s.labels == {"gpu": "1"}}
    assert {name: s.value for name, s in shown.items()} == {
        "derma_gpu_busy_ratio": 0.37, "derma_gpu_memory_used_bytes": 2**31, "derma_gpu_memory_size_bytes": 2**34,
        "derma_gpu_temperature_celsius": 61, "derma_gpu_power_watts": 71.5,
    }  # fmt: skip
    assert set(shown) == {spec.name for spec in CONTRACT if "gpu" in spec.labels}


@pytest.mark.parametrize("module", [None, nvml(1, nvmlInit=fail), nvml(0)])
def test_without_a_library_a_driver_or_a_gpu_there_is_nothing(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert list(open_gpus()()) == []


def test_a_gpu_without_a_sensor_shows_what_it_has(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1, nvmlDeviceGetPowerUsage=fail))
    assert {name for name, _, _ in open_gpus()()} == {
        "derma_gpu_busy_ratio", "derma_gpu_memory_used_bytes", "derma_gpu_memory_size_bytes",
        "derma_gpu_temperature_celsius",
    }  # fmt: skip
