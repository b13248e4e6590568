"""Which runner a network gets: what was asked for, and what this machine can run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from derma_common.errors import ResourceError
from derma_common.inference.probe import Report
from derma_common.settings import ClassifierSettings, DetectorSettings, RunSettings

AUTO, ONNX, ONNX_CUDA, ONNX_TENSORRT, TENSORRT = "auto", "onnx", "onnx-cuda", "onnx-tensorrt", "tensorrt"
PROVIDERS = {ONNX_CUDA: "CUDAExecutionProvider", ONNX_TENSORRT: "TensorrtExecutionProvider"}
PREFERENCE = (TENSORRT, ONNX_CUDA, ONNX)
OLDEST_TENSORRT = 10  # strongly typed networks, in which precision is the file's


@dataclass(frozen=True)
class RunnerChoice:
    """What runs a network, where, and how exactly; `pictures` judge a fresh engine (None: the sample recording)."""

    runner: str = ONNX
    gpu: int = -1  # index; −1: the CPU
    precision: str = "fp16"  # of an engine
    engine_dir: Path = Path()
    pictures: Path | None = None
    graphs: bool = True  # an engine's work as CUDA graphs


CPU = RunnerChoice()


def choice_of(section: DetectorSettings | ClassifierSettings, run: RunSettings) -> RunnerChoice:
    """Return what the settings ask for."""
    pictures = Path(run.engine_pictures).expanduser().absolute() if run.engine_pictures else None
    return RunnerChoice(
        section.runner, section.gpu, section.precision, Path(run.engine_dir).expanduser().absolute(), pictures
    )


def usable(report: Report, gpu: int) -> dict[str, str]:
    """Say of every runner why it cannot run on GPU number `gpu`; empty where it can."""
    no_gpu = ""
    if gpu < 0:
        no_gpu = "gpu = -1"
    elif not report.gpus:
        no_gpu = "; ".join(report.problems) or "there is no GPU"
    elif gpu >= len(report.gpus):
        no_gpu = f"there is no GPU {gpu}: the driver sees {len(report.gpus)}, counted from 0"
    reasons = {ONNX: "", TENSORRT: no_gpu or _lacks_tensorrt(report)}
    for runner, provider in PROVIDERS.items():
        lacks = "" if provider in report.providers else f"this onnxruntime has no {provider}: it takes onnxruntime-gpu"
        reasons[runner] = no_gpu or lacks
    return reasons


def _lacks_tensorrt(report: Report) -> str:
    name, _, version = report.tensorrt.partition(" ")
    if not name or not report.binding:
        return "; ".join(report.problems) or "TensorRT or a CUDA binding is missing"
    if name == "tensorrt" and int(version.partition(".")[0]) < OLDEST_TENSORRT:
        return f"TensorRT {version} is older than {OLDEST_TENSORRT}"
    return ""


def resolve(choice: RunnerChoice, report: Report) -> tuple[RunnerChoice, str]:
    """Return the choice with the runner that it comes to, and a line to say when a GPU stays unused; else an empty one.

    Raises ResourceError when a runner that was named cannot run.
    """
    reasons = usable(report, choice.gpu)
    if choice.runner != AUTO:
        if reasons[choice.runner]:
            raise ResourceError(f"the runner {choice.runner} cannot run here: {reasons[choice.runner]}")
        return choice, ""
    runner = next(name for name in PREFERENCE if not reasons[name])
    if runner == ONNX:
        said = f"no network runs on the GPU: {reasons[TENSORRT]}" if report.gpus and choice.gpu >= 0 else ""
        return replace(choice, runner=ONNX, gpu=-1), said
    return replace(choice, runner=runner), ""
