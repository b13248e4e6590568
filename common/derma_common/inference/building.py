"""From a model to an engine that may serve: converted, built, judged, kept; or found where it was kept.

An engine that disagrees with its network is kept too, with the reasons, so that it is not built at every start. Then
the next more precise one is taken: int8, fp16, fp32.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from derma_common.errors import ModelError, ResourceError
from derma_common.inference.card import ModelCard, read_card, verified_file
from derma_common.inference.choice import RunnerChoice
from derma_common.inference.engines import ANY, Engine, EngineCache, EngineKey
from derma_common.inference.examples import Example, examples, identity
from derma_common.inference.gate import Verdict, judge
from derma_common.inference.onnx import OnnxRunner
from derma_common.inference.precision import PRECISIONS, converted
from derma_common.inference.probe import Report
from derma_common.inference.runner import Runner
from derma_common.inference.tensorrt import Progress, TensorRt
from derma_common.preprocess import Image, cut, square_around

log = logging.getLogger(__name__)
JUDGES_THREADS = 2


class Backend(Protocol):
    """What builds engines and runs them: TensorRT in one of its flavours."""

    flavour: str  # with its version, such as "tensorrt-rtx 1.7.1.116"

    def build(self, network: bytes, card: ModelCard, sm: str, cache: EngineCache, progress: Progress | None) -> bytes:
        """Return the engine of an ONNX network for a compute capability. Raises ModelError when it cannot be built."""
        ...

    def load(self, card: ModelCard, engine: bytes, name: str, choice: RunnerChoice) -> Runner:
        """Open an engine. Raises ModelError when it cannot be loaded."""
        ...


@dataclass(frozen=True)
class Prepared:
    """An opened engine that may serve, and what is known of it."""

    card: ModelCard
    runner: Runner
    precision: str  # may be more precise than what was asked for
    path: Path
    verdict: Verdict


def prepare(directory: Path, choice: RunnerChoice, report: Report, progress: Progress | None = None) -> Prepared:
    """Return an opened engine of the model in `directory` that agrees with its network: found, or built and judged.

    Raises ModelError when there can be none, ResourceError when TensorRT or the cache cannot be used.
    """
    return EngineMaker(directory, choice, TensorRt(choice.gpu)).prepare(report, progress)


def prebuild(directory: Path, choice: RunnerChoice, sm: str, progress: Progress | None = None) -> Path:
    """Build the engine of the model in `directory` for a compute capability ("7.5"), without a GPU; returns its file.

    It is judged on the first machine that wants to use it. Raises ModelError, and ResourceError when the TensorRT that
    is installed builds on a GPU only, or the cache cannot be used.
    """
    backend = TensorRt()
    if not backend.builds_ahead:
        raise ResourceError(f"{backend.flavour} builds only on the GPU that it builds for; tensorrt-rtx builds ahead")
    return EngineMaker(directory, choice, backend).prebuild(sm, progress)


class EngineMaker:
    """Makes engines of one model for one GPU, or for one compute capability."""

    def __init__(self, directory: Path, choice: RunnerChoice, backend: Backend) -> None:
        """Raises ModelError when `directory` is no ONNX model, ResourceError when the cache cannot be used."""
        self._card = read_card(directory)
        if self._card.runner != "onnx":
            raise ModelError(f"{directory} is for the runner {self._card.runner}; engines are built from ONNX networks")
        self._file = verified_file(self._card, directory)
        self._choice, self._backend = choice, backend
        self._cache = EngineCache(choice.engine_dir)
        self._pictures: list[Example] | None = None

    def prepare(self, report: Report, progress: Progress | None = None) -> Prepared:
        """Return the least precise engine, from the asked precision on, that agrees with its network on this GPU.

        Raises ModelError when none does or none can be built, with the reasons of each.
        """
        gpu = report.gpus[self._choice.gpu]
        refused: list[str] = []
        for precision in PRECISIONS[PRECISIONS.index(self._choice.precision) :]:
            key = self._key(precision, gpu.sm, gpu.name, report.driver)
            with self._cache.lock():
                try:
                    prepared = self._of_precision(key, progress)
                except ModelError as error:
                    reason = str(error)
                else:
                    if isinstance(prepared, Prepared):
                        return prepared
                    reason = f"{self._card.name}: its {precision} engine disagrees with its network: " + "; ".join(
                        prepared.reasons
                    )
            log.warning("%s", reason)
            refused.append(reason)
        raise ModelError("; ".join(refused))

    def prebuild(self, sm: str, progress: Progress | None = None) -> Path:
        """Build the asked precision for a compute capability, without a GPU; it is judged where it is first used."""
        key = self._key(self._choice.precision, sm, ANY, ANY)
        with self._cache.lock():
            found = self._cache.find(key) or self._cache.store(key, self._built(key, progress), None)
            return found.path

    def _key(self, precision: str, sm: str, gpu: str, driver: str) -> EngineKey:
        spec = self._card.input
        return EngineKey(
            model=self._card.sha256,
            preprocessing=hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest(),
            precision=precision, max_batch=spec.max_batch, flavour=self._backend.flavour, sm=sm, gpu=gpu, driver=driver,
            pictures=identity(self._choice.pictures),
        )  # fmt: skip

    def _of_precision(self, key: EngineKey, progress: Progress | None) -> Prepared | Verdict:
        """Find or make the engine of a key; returns the verdict alone when it may not serve."""
        found = self._cache.find(key)
        if found and found.verdict and not found.verdict.passed:
            return found.verdict
        found = found or self._cache.find(key.anywhere)
        with ExitStack() as opening:
            runner = self._reopened(found, key) if found else None
            if found is None or runner is None:
                found = self._cache.store(key, self._built(key, progress), None)
                runner = self._opened(found, key)
            opening.callback(runner.close)
            verdict = found.verdict
            if verdict is None:
                verdict = self._judged(runner, key.precision, progress)
                found = self._cache.store(key, found.data, verdict)
            if verdict.passed:
                opening.pop_all()
                return Prepared(self._card, runner, key.precision, found.path, verdict)
        return verdict

    def _opened(self, engine: Engine, key: EngineKey) -> Runner:
        return self._backend.load(self._card, engine.data, f"{self._backend.flavour} {key.precision}", self._choice)

    def _reopened(self, engine: Engine, key: EngineKey) -> Runner | None:
        """Open an engine of an earlier time; None when TensorRT does not take it any more."""
        try:
            return self._opened(engine, key)
        except ModelError as error:
            log.warning("%s; it is built anew", error)
            return None

    def _built(self, key: EngineKey, progress: Progress | None) -> bytes:
        log.info("building %s for %s, %s", self._card.name, key.sm, key.precision)
        network = converted(self._file, self._card, key.precision, self._calibration())
        return self._backend.build(network, self._card, key.sm, self._cache, progress)

    def _judged(self, runner: Runner, precision: str, progress: Progress | None) -> Verdict:
        if progress:
            progress("comparing with the network", 0, 1)
        with OnnxRunner(self._card, self._file, JUDGES_THREADS) as reference:
            verdict = judge(self._card, reference, runner, precision, self._examples()[::2])
        if progress:
            progress("comparing with the network", 1, 1)
        log.info("%s %s: %s", self._card.name, precision, verdict.figures)
        return verdict

    def _examples(self) -> list[Example]:
        if self._pictures is None:
            self._pictures = examples(self._choice.pictures)
        return self._pictures

    def _calibration(self) -> Iterator[Image]:
        """Yield what int8 is calibrated on, of pictures that do not judge it."""
        for picture in self._examples()[1::2]:
            if self._card.kind == "detector":
                yield picture.image
            else:
                for box in picture.squares:
                    square = square_around(box, self._card.crop_margin)
                    yield cut(picture.image, square, self._card.input.width)
