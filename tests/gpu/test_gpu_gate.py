"""Engines of the shipped networks on this GPU agree with ONNX Runtime on real pictures, and are built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from derma_common.config import load_settings
from derma_common.inference.building import prepare
from derma_common.inference.choice import TENSORRT, RunnerChoice
from derma_common.inference.probe import probe
from derma_common.shipped import model_dir

SETTINGS = load_settings(None, {})


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("model", [SETTINGS.detector.model, SETTINGS.classifier.model])
def test_an_engine_agrees_with_its_network_or_a_more_exact_one_is_used(
    model: str, precision: str, tmp_path: Path
) -> None:
    choice = RunnerChoice(TENSORRT, gpu=0, precision=precision, engine_dir=tmp_path / "engines")
    made = prepare(model_dir(model), choice, probe())
    made.runner.close()
    assert made.verdict.passed
    assert made.precision == precision or (precision, made.precision) == ("int8", "fp16")
    written = made.path.stat().st_mtime_ns
    again = prepare(model_dir(model), choice, probe())
    again.runner.close()
    assert (again.path, again.path.stat().st_mtime_ns) == (made.path, written), "the second time it is found"
