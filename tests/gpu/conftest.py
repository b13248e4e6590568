"""Tests that need a GPU: skipped where there is none, failed where one was promised (`make gpu-check`)."""

from __future__ import annotations

import os

import pytest

from derma_common.inference.choice import ONNX, TENSORRT, usable
from derma_common.inference.probe import probe


@pytest.fixture(scope="session")
def gpu_runner() -> str:
    """The best runner on GPU 0: TensorRT, else one of ONNX Runtime's."""
    reasons = {name: reason for name, reason in usable(probe(), 0).items() if name != ONNX}
    found = [name for name, reason in reasons.items() if not reason]
    if found:
        return TENSORRT if TENSORRT in found else found[0]
    _lacks("; ".join(sorted(set(reasons.values()))))


@pytest.fixture(scope="session")
def tensorrt() -> None:
    """TensorRT on GPU 0."""
    reason = usable(probe(), 0)[TENSORRT]
    if reason:
        _lacks(reason)


def _lacks(reason: str) -> None:
    if "GPU_PROMISED" in os.environ:
        pytest.fail(f"no GPU: {reason}")
    pytest.skip(f"no GPU: {reason}")
