"""TensorRT: engines built and run, by `tensorrt` ≥ 10 or by `tensorrt-rtx`, which builds without a GPU.

Networks are strongly typed: what is calculated in which precision stands in the ONNX file. An engine takes 1 to the
card's max_batch pictures where the file's batch is open. Only engines from `engines.EngineCache` may be loaded: they
are programs.
"""

from __future__ import annotations

import logging
import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from derma_common.errors import ModelError, ResourceError
from derma_common.inference.card import ModelCard
from derma_common.inference.choice import RunnerChoice
from derma_common.inference.cuda import Bytes, open_device
from derma_common.inference.engines import EngineCache
from derma_common.inference.pixels import Pixels
from derma_common.inference.runner import Array, PictureRunner, check_input
from derma_common.preprocess import Image

log = logging.getLogger(__name__)
_FLOAT_BYTES = 4  # inputs and outputs are float32
Progress = Callable[[str, int, int], None]  # what is done, steps of it that are done, steps of it


class TensorRt:
    """TensorRT in the flavour that is installed, as building.Backend."""

    def __init__(self, gpu: int = 0) -> None:
        """`gpu` is the index of the one to build on. Raises ResourceError when no TensorRT is installed."""
        self._trt, name = _library()
        self._gpu = gpu
        self.builds_ahead = name == "tensorrt-rtx"
        self.flavour = f"{name} {self._trt.__version__}"
        self._logger = _logger(self._trt)

    def build(self, network: bytes, card: ModelCard, sm: str, cache: EngineCache, progress: Progress | None) -> bytes:
        """Return the engine of an ONNX network, as Backend.build."""
        with ExitStack() as building:
            if not self.builds_ahead:  # it builds for the GPU that is current
                building.callback(open_device(self._gpu).close)
            return self._build(network, card, sm, cache, progress)

    def _build(self, network: bytes, card: ModelCard, sm: str, cache: EngineCache, progress: Progress | None) -> bytes:
        trt = self._trt
        self._logger.errors.clear()
        builder = trt.Builder(self._logger)
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        definition = builder.create_network(typed)
        parser = trt.OnnxParser(definition, self._logger)
        if not parser.parse(network):
            said = parser.get_error(0).desc() if parser.num_errors else "no reason given"
            raise ModelError(f"{card.name}: {self.flavour} cannot read the network: {_line(said)}")
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
        if progress:
            config.progress_monitor = _monitor(trt, progress)
        tensor = definition.get_input(0)
        if tensor.shape[0] == -1:
            config.add_optimization_profile(_profile(builder, tensor, card.input.max_batch))
        timing = f"timing-{self.flavour.replace(' ', '-')}.cache"
        if self.builds_ahead:
            config.num_compute_capabilities = 1
            config.set_compute_capability(_capability(trt, sm), 0)
        else:
            config.set_timing_cache(config.create_timing_cache(cache.side_file(timing)), ignore_mismatch=False)
        engine = builder.build_serialized_network(definition, config)
        if engine is None:
            raise ModelError(f"{card.name}: {self.flavour} cannot build it for SM {sm}: {_last(self._logger)}")
        if not self.builds_ahead:
            cache.keep_side_file(timing, bytes(config.get_timing_cache().serialize()))
        return bytes(engine)

    def load(self, card: ModelCard, engine: bytes, name: str, choice: RunnerChoice) -> TensorRtRunner:
        """Open an engine on the choice's GPU, as Backend.load."""
        return TensorRtRunner(self._trt, self._logger, card, engine, name, choice)


class TensorRtRunner(PictureRunner):
    """An engine, opened on a GPU. It is a PictureRunner."""

    def __init__(
        self, trt: Any, logger: Any, card: ModelCard, engine: bytes, name: str, choice: RunnerChoice
    ) -> None:  # fmt: skip
        """Open an engine.

        Raises ModelError when TensorRT refuses it or its tensors are not the card's, ResourceError when the GPU cannot
        be opened or has no room for it.
        """
        self.card, self.name = card, name
        self._device = open_device(choice.gpu)
        with ExitStack() as opening:
            opening.callback(self._device.close)
            self._runtime = trt.Runtime(logger)
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                raise ModelError(f"{card.name}: {name} does not load its engine: {_last(logger)}")
            self._shapes = self._checked_shapes(trt)
            self._context = self._context_with(trt, choice.graphs)
            if self._context is None:
                raise ResourceError(f"{card.name}: the GPU has no room for {name}: {_last(logger)}")
            try:
                self._take_memory()
            except self._device.errors as error:
                raise ResourceError(f"{card.name}: the GPU has no room for {name}: {error}") from error
            opening.pop_all()
        # RTX makes graphs by itself
        self._graphs = choice.graphs and not hasattr(trt, "CudaGraphStrategy")
        self._work: dict[int, Callable[[], None]] = {}  # by pictures in the batch
        self._batch = 0

    def _take_memory(self) -> None:
        batch = self.card.input.max_batch
        size = {tensor: batch * math.prod(shape) * _FLOAT_BYTES for tensor, shape in self._shapes.items()}
        self._memory = {tensor: self._device.allocate(count) for tensor, count in size.items()}
        self._host = {tensor: self._device.pinned(count) for tensor, count in size.items()}
        for tensor, address in self._memory.items():
            self._context.set_tensor_address(tensor, address)
        self._pixels = Pixels(self._device, self.card.input, self._memory[self.card.input.name])

    def _checked_shapes(self, trt: Any) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor, without the batch. Raises ModelError when they are not the card's."""
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if inputs != [self.card.input.name] or set(self.card.outputs) - set(names):
            raise ModelError(f"{self.card.name}: the engine's tensors {sorted(names)} are not its card's")
        return {name: tuple(self._engine.get_tensor_shape(name))[1:] for name in names}

    def _context_with(self, trt: Any, graphs: bool) -> Any:
        if not hasattr(trt, "CudaGraphStrategy"):
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        if graphs:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network on `inputs`, as Runner.infer."""
        array = check_input(self.card, inputs)
        staging = self._host[self.card.input.name][: array.nbytes]
        np.copyto(staging.view(np.float32).reshape(array.shape), array)
        self._device.upload(self._memory[self.card.input.name], staging)
        return self._run(len(array))

    def infer_letterboxed(self, image: Image) -> dict[str, Array]:
        """Fit a picture into the input and run, as PictureRunner.infer_letterboxed."""
        self._pixels.letterbox(image)
        return self._run(1)

    def infer_squares(self, image: Image, squares: Sequence[Sequence[int]]) -> dict[str, Array]:
        """Cut squares out of a picture and run, as PictureRunner.infer_squares."""
        self._pixels.crops(image, squares)
        return self._run(len(squares))

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        """Let pictures in `memory` travel without a copy on the way, as PictureRunner.pin."""
        return self._pixels.pin(memory)

    def compute_ms(self, inputs: Mapping[str, Array]) -> float:
        """Return how long the network alone takes, without the copies to and from the GPU: for benchmarks."""
        count = len(next(iter(self.infer(inputs).values())))
        start = self._device.record()
        self._queue(count)
        end = self._device.record()
        self._device.synchronize()
        return self._device.elapsed_ms(start, end)

    def _run(self, count: int) -> dict[str, Array]:
        """Queue the network on the first `count` pictures of the input and return copies of its outputs."""
        self._queue(count)
        parts: dict[str, Bytes] = {}
        for tensor, shape in self._shapes.items():
            if tensor != self.card.input.name:
                parts[tensor] = self._host[tensor][: count * math.prod(shape) * _FLOAT_BYTES]
                self._device.download(parts[tensor], self._memory[tensor])
        self._device.synchronize()
        return {
            tensor: part.view(np.float32).reshape(count, *self._shapes[tensor]).copy() for tensor, part in parts.items()
        }

    def _queue(self, count: int) -> None:
        if count != self._batch:
            self._context.set_input_shape(self.card.input.name, (count, *self._shapes[self.card.input.name]))
            self._batch = count
        if count not in self._work:
            self._enqueue()  # the first time lets TensorRT allocate, which no graph can hold
            self._device.synchronize()
            self._work[count] = self._device.captured(self._enqueue) if self._graphs else self._enqueue
        self._work[count]()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise RuntimeError(f"{self.card.name}: {self.name} did not queue the network")

    def close(self) -> None:
        """Free the engine and the device's memory."""
        if self._context is not None:
            self._device.synchronize()
            self._work.clear()
            self._context = self._engine = self._runtime = None
            self._device.close()


def _library() -> tuple[Any, str]:
    """Return TensorRT's module and the name of its flavour; the full one before RTX."""
    try:
        import tensorrt

        return tensorrt, "tensorrt"
    except (ImportError, OSError) as error:
        log.debug("tensorrt: %s", error)
    try:
        import tensorrt_rtx

        return tensorrt_rtx, "tensorrt-rtx"
    except (ImportError, OSError) as error:
        raise ResourceError(f"TensorRT is not installed ({_line(str(error))}): pip install 'derma[gpu]'") from None


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """TensorRT's lines into the log, its errors kept for the one that we raise."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(text)
            log.debug("%s", text)

    return Logger()


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """The builder's phases as steps done; the outermost phase alone, the others come and go."""

        def __init__(self) -> None:
            super().__init__()
            self._outer, self._steps = "", 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._outer, self._steps = phase_name, num_steps
                progress("building", 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outer:
                progress("building", step + 1, self._steps)
            return True

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self._outer:
                progress("building", self._steps, self._steps)

    return Monitor()


def _profile(builder: Any, tensor: Any, max_batch: int) -> Any:
    profile = builder.create_optimization_profile()
    shape = tuple(tensor.shape)[1:]
    profile.set_shape(tensor.name, (1, *shape), (max(1, max_batch // 2), *shape), (max_batch, *shape))
    return profile


def _capability(trt: Any, sm: str) -> Any:
    found = getattr(trt.ComputeCapability, f"SM{sm.replace('.', '')}", None)
    if found is None:
        known = sorted(name for name in dir(trt.ComputeCapability) if name.startswith("SM"))
        raise ModelError(f"tensorrt-rtx builds for {', '.join(known)}, not for SM {sm}")
    return found


def _last(logger: Any) -> str:
    return _line(logger.errors[-1]) if logger.errors else "no reason given"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
