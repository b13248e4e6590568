"""TensorRT's runtime played by ONNX Runtime over host memory: what TensorRtRunner calls, and nothing else.

An "engine" is an ONNX network. Used with support.host_device, whose addresses are the host's.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")


class Logger:
    def __init__(self) -> None:
        self.errors: list[str] = []


class Runtime:
    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        try:
            return Engine(ort.InferenceSession(data, providers=["CPUExecutionProvider"]))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            self._logger.errors.append(str(error))
            return None


class Engine:
    def __init__(self, session: Any) -> None:
        self.session = session
        self._inputs = {tensor.name: tensor for tensor in session.get_inputs()}
        self._tensors = self._inputs | {tensor.name: tensor for tensor in session.get_outputs()}
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(side if isinstance(side, int) else -1 for side in self._tensors[name].shape)

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()
        self.queued = 0

    def set_tensor_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        fixed = self._engine.get_tensor_shape(name)
        assert all(side in (-1, given) for side, given in zip(fixed, shape, strict=True)), (fixed, shape)
        self._input, self._shape = name, shape

    def execute_async_v3(self, stream: int) -> bool:
        values = (ctypes.c_float * int(np.prod(self._shape))).from_address(self._addresses[self._input])
        names = [output.name for output in self._engine.session.get_outputs()]
        given = {self._input: np.ctypeslib.as_array(values).reshape(self._shape)}
        for name, array in zip(names, self._engine.session.run(names, given), strict=True):
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(array).ctypes.data, array.nbytes)
        self.queued += 1
        return True
