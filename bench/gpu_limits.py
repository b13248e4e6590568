"""What the device itself can do: bytes copied each way, and multiplications and additions in products of matrices."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gpu_networks import MATRIX_FLOP, matrix_network
from gpu_variants import measure

from derma_common.inference.cuda import open_device
from derma_common.inference.probe import probe

MIB = 64
ROUNDS = 20


def copy_rates() -> dict[str, float]:
    """Return GB/s of copies from pinned memory to GPU 0 and back; without a GPU of a copy inside the host's memory."""
    size = MIB << 20
    if not probe().gpus:
        source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
        np.copyto(target, source)
        started = time.monotonic()
        for _ in range(ROUNDS):
            np.copyto(target, source)
        return {"copy in the host's memory, GB/s": round(ROUNDS * size / (time.monotonic() - started) / 1e9, 2)}
    device = open_device(0)
    try:
        host, there = device.pinned(size), device.allocate(size)
        rates = {}
        for name, copy in (("to", lambda: device.upload(there, host)), ("from", lambda: device.download(host, there))):
            copy()
            start = device.record()
            for _ in range(ROUNDS):
                copy()
            end = device.record()
            device.synchronize()
            rates[f"copy {name} the device, GB/s"] = round(ROUNDS * size / device.elapsed_ms(start, end) / 1e6, 2)
        return rates
    finally:
        device.close()


def matrix_rates(folder: Path, runners: Sequence[str], seconds: float) -> dict[str, float]:
    """Return TFLOP/s of the matrix network by runner and precision; int8 is left out, a product there is no FLOP."""
    directory = matrix_network(folder)
    rates = {}
    for runner in runners:
        rows, _ = measure(directory, runner, [1], seconds, precisions=("fp32", "fp16"))
        for row in rows:
            ms = row.p50_ms if row.device_ms is None else row.device_ms
            rates[f"{row.runner}, {row.precision}, TFLOP/s"] = round(MATRIX_FLOP / ms / 1e9, 3)
    return rates
