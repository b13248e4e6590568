"""Which runner a network gets on which machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from derma_common.errors import ResourceError
from derma_common.inference.choice import RunnerChoice, choice_of, resolve, usable
from derma_common.inference.probe import Gpu, Report
from derma_common.settings import DetectorSettings, RunSettings

NOTHING = Report(problems=("NVIDIA's driver: not installed",))
CPU_WHEEL = ("CPUExecutionProvider",)
GPU = Gpu(0, "Quadro RTX 6000", "7.5", 24 << 30)
FULL = Report("13.0", (GPU,), "tensorrt 10.3.0", "pycuda", ("TensorrtExecutionProvider", "CUDAExecutionProvider"))
AUTO = RunnerChoice("auto", 0)


@pytest.mark.parametrize(
    ("report", "runner"),
    [
        (NOTHING, "onnx"),
        (FULL, "tensorrt"),
        (replace(FULL, tensorrt="tensorrt-rtx 1.7.1.116"), "tensorrt"),
        (replace(FULL, tensorrt="tensorrt 8.6.1"), "onnx-cuda"),
        (replace(FULL, tensorrt=""), "onnx-cuda"),
        (replace(FULL, binding=""), "onnx-cuda"),
        (replace(FULL, tensorrt="", providers=CPU_WHEEL), "onnx"),
    ],
    ids=["no driver", "everything", "rtx", "old TensorRT", "no TensorRT", "no binding", "a bare driver"],
)
def test_auto_is_the_best_that_can_run(report, runner):
    chosen, _ = resolve(AUTO, report)
    assert chosen.runner == runner
    assert chosen.gpu == (-1 if runner == "onnx" else 0)


def test_a_gpu_that_stays_unused_is_told_once_and_a_machine_without_one_is_silent():
    assert resolve(AUTO, NOTHING)[1] == ""
    assert resolve(replace(AUTO, gpu=-1), FULL)[1] == ""
    lacks = Report("13.0", (GPU,), "", "", CPU_WHEEL, ("TensorRT: tensorrt_rtx: No module named 'tensorrt_rtx'",))
    assert resolve(AUTO, lacks)[1].startswith("no network runs on the GPU: TensorRT: tensorrt_rtx: No module")


def test_without_a_gpu_in_the_settings_the_cpu_is_taken():
    chosen, _ = resolve(RunnerChoice("auto", -1), FULL)
    assert chosen.runner == "onnx"


@pytest.mark.parametrize(
    ("runner", "gpu", "report", "words"),
    [
        ("tensorrt", 0, NOTHING, "NVIDIA's driver: not installed"),
        ("tensorrt", 1, FULL, "there is no GPU 1: the driver sees 1"),
        ("tensorrt", -1, FULL, "gpu = -1"),
        ("tensorrt", 0, replace(FULL, tensorrt="tensorrt 8.6.1"), "TensorRT 8.6.1 is older than 10"),
        ("onnx-cuda", 0, replace(FULL, providers=CPU_WHEEL), "has no CUDAExecutionProvider"),
        ("onnx-tensorrt", 0, replace(FULL, providers=CPU_WHEEL), "has no TensorrtExecutionProvider"),
    ],
)
def test_a_runner_that_is_named_and_cannot_run_is_one_line(runner, gpu, report, words):
    with pytest.raises(ResourceError, match=words) as caught:
        resolve(RunnerChoice(runner, gpu), report)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runner", ["tensorrt", "onnx-cuda", "onnx-tensorrt", "onnx"])
def test_a_runner_that_is_named_and_can_run_is_taken(runner):
    assert resolve(RunnerChoice(runner, 0), FULL)[0].runner == runner


def test_the_cpu_can_always_run_and_every_other_says_why_not():
    reasons = usable(NOTHING, 0)
    assert reasons.pop("onnx") == ""
    assert set(reasons) == {"onnx-cuda", "onnx-tensorrt", "tensorrt"}
    assert all(reason == "NVIDIA's driver: not installed" for reason in reasons.values())


def test_the_settings_become_a_choice():
    section = DetectorSettings(runner="tensorrt", gpu=1, precision="int8")
    choice = choice_of(section, RunSettings(engine_dir="~/engines", engine_pictures="mine"))
    assert choice == RunnerChoice("tensorrt", 1, "int8", Path.home() / "engines", Path.cwd() / "mine")
    assert choice_of(section, RunSettings()).pictures is None
