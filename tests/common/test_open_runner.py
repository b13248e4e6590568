"""A network is opened with the runner that was chosen, or with the CPU's where "auto" finds nothing better."""

from __future__ import annotations

import warnings

import onnxruntime
import pytest

from derma_common.errors import ResourceError
from derma_common.inference import opening
from derma_common.inference.card import read_card
from derma_common.inference.choice import RunnerChoice
from derma_common.inference.fake import fake_classifier
from derma_common.inference.onnx import OnnxRunner
from derma_common.inference.opening import open_runner
from derma_common.inference.probe import Gpu, Report, probe
from derma_common.shipped import shipped

DETECTOR = shipped("models") / "yolov4-tiny-mole"
NOTHING = Report(problems=("NVIDIA's driver: not installed",))
FULL = Report("13.0", (Gpu(0, "Quadro RTX 6000", "7.5", 24 << 30),), "tensorrt-rtx 1.7.1", "cuda-bindings")
CUDA = "CUDAExecutionProvider"


@pytest.fixture
def machine(monkeypatch):
    return lambda report: monkeypatch.setattr(opening, "probe", lambda: report)


def test_auto_on_a_machine_without_a_gpu_is_the_cpu_and_says_nothing(machine, caplog):
    machine(NOTHING)
    _, runner = open_runner(DETECTOR, "detector", 1, RunnerChoice("auto", 0))
    with runner:
        assert runner.name == "onnx"
    assert caplog.text == ""


def test_a_runner_that_is_named_and_cannot_run_is_an_error(machine):
    machine(NOTHING)
    with pytest.raises(ResourceError, match="the runner tensorrt cannot run here"):
        open_runner(DETECTOR, "detector", 1, RunnerChoice("tensorrt", 0))


def test_when_the_gpu_is_lost_the_cpu_goes_on_with_one_line(machine, caplog, tmp_path):
    """The engine is real; what it would run on was taken away after the probe saw it."""
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("onnx")
    if probe().gpus:
        pytest.skip("this machine has a GPU to lose")
    machine(FULL)
    _, runner = open_runner(DETECTOR, "detector", 1, RunnerChoice("auto", 0, engine_dir=tmp_path / "engines"))
    with runner:
        assert runner.name == "onnx"
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("GPU 0 cannot be opened")
    assert line.endswith("yolov4-tiny-mole runs on the CPU")
    with pytest.raises(ResourceError, match="GPU 0 cannot be opened"):
        open_runner(DETECTOR, "detector", 1, RunnerChoice("tensorrt", 0, engine_dir=tmp_path / "engines"))


def test_a_model_without_a_network_runs_as_it_is(machine, tmp_path):
    machine(NOTHING)
    _, runner = open_runner(fake_classifier(tmp_path / "m"), "classifier", 1, RunnerChoice("tensorrt", 0))
    assert runner.name == "fake"


def test_a_provider_that_this_onnx_runtime_lacks_is_one_line():
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has it")
    card = read_card(DETECTOR)
    with pytest.raises(ResourceError, match=f"has no {CUDA}; it takes onnxruntime-gpu"):
        OnnxRunner(card, DETECTOR / card.file, 1, "onnx-cuda", CUDA)


def test_onnx_runtimes_silent_fall_back_to_the_cpu_is_found_out(monkeypatch):
    """It only warns when a provider does not start, as without CUDA's libraries."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has it")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    card = read_card(DETECTOR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ResourceError, match="ONNX Runtime fell back to CPUExecutionProvider"):
            OnnxRunner(card, DETECTOR / card.file, 1, "onnx-cuda", CUDA)
