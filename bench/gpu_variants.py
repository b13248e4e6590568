"""One network with one runner: in each precision, each batch, with and without CUDA graphs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from derma_cli.models_bench import pictures_of, time_calls
from derma_common.drawn.camera import SyntheticCamera
from derma_common.errors import DermaError
from derma_common.inference.card import ModelCard, read_card
from derma_common.inference.choice import ONNX, PROVIDERS, TENSORRT, RunnerChoice
from derma_common.inference.engines import EngineCache
from derma_common.inference.onnx import OnnxRunner
from derma_common.inference.precision import converted
from derma_common.inference.probe import probe
from derma_common.inference.runner import Runner
from derma_common.inference.tensorrt import TensorRt, TensorRtRunner

PRECISIONS = ("fp32", "fp16", "int8")
THREADS = 2  # of the CPU
CALIBRATION = 8  # drawn pictures: what an int8 network says does not matter here, only how fast
DEVICE_CALLS = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One row: ms of a call with tensors in host memory, and of the network alone where the runner can tell."""

    network: str
    runner: str
    precision: str
    batch: int
    graphs: bool | None  # None: the runner has none
    p50_ms: float
    p99_ms: float
    device_ms: float | None
    pictures_per_s: float


def measure(
    directory: Path, runner: str, batches: Sequence[int], seconds: float, precisions: Sequence[str] = PRECISIONS
) -> tuple[list[Measured], dict[str, str]]:
    """Return the rows of one network with one runner, and why a precision has none."""
    card = read_card(directory)
    rows: list[Measured] = []
    lacking: dict[str, str] = {}
    for precision in precisions:
        what = f"{card.name}, {runner}, {precision}"
        if (runner, precision) == (ONNX, "fp16"):
            lacking["onnx, fp16"] = "on a CPU it would be calculated in fp32, with conversions"
            continue
        try:
            for graphs, opened in _opened(directory, card, runner, precision):
                with opened:
                    rows += [_row(card, opened, precision, batch, graphs, seconds) for batch in batches]
        except DermaError as error:
            lacking[what] = str(error)
    return rows, lacking


def _opened(directory: Path, card: ModelCard, runner: str, precision: str) -> Iterator[tuple[bool | None, Runner]]:
    """Yield the opened runner, with TensorRT once with graphs and once without; random weights pass no gate."""
    camera = SyntheticCamera(seed=1, frames=CALIBRATION, width=640, height=480)
    pictures = [camera.image(n) for n in range(CALIBRATION)]
    network = converted(directory / card.file, card, precision, pictures)
    if runner != TENSORRT:
        provider = {"provider": PROVIDERS[runner]} if runner in PROVIDERS else {}
        yield None, OnnxRunner(card, network, THREADS, runner, **provider)
        return
    backend = TensorRt()
    cache = EngineCache(directory / "engines")
    engine = backend.build(network, card, probe().gpus[0].sm, cache, None)
    for graphs in (True, False):
        choice = RunnerChoice(TENSORRT, gpu=0, precision=precision, engine_dir=directory / "engines", graphs=graphs)
        yield graphs, backend.load(card, engine, backend.flavour, choice)


def _row(card: ModelCard, runner: Runner, precision: str, batch: int, graphs: bool | None, seconds: float) -> Measured:
    timed = time_calls(card, runner, batch, seconds)
    device_ms = None
    if isinstance(runner, TensorRtRunner):
        inputs = pictures_of(card, batch)
        device_ms = round(statistics.median(runner.compute_ms(inputs) for _ in range(DEVICE_CALLS)), 3)
    return Measured(
        card.name, runner.name, precision, batch, graphs, timed.p50_ms, timed.p99_ms, device_ms, timed.pictures_per_s
    )
