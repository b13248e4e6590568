"""The runner on ONNX Runtime: the default on every machine without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import onnxruntime as ort

from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard
from derma_common.inference.runner import Array, check_input


class OnnxRunner:
    """An ONNX file opened with ONNX Runtime on the CPU."""

    def __init__(self, card: ModelCard, path: Path, threads: int) -> None:
        """Open `path`. Raises ModelError when it is no ONNX file or its tensors are not the card's."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # idle threads must not spin: detector and classifiers share the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelError(f"{card.name}: ONNX Runtime cannot open {path}: {str(error)[:200]}") from error
        self.card = card
        self._outputs = [output.name for output in self._session.get_outputs()]
        inputs = [tensor.name for tensor in self._session.get_inputs()]
        if inputs != [card.input.name] or set(card.outputs) - set(self._outputs):
            raise ModelError(
                f"{card.name}: the file has inputs {inputs} and outputs {self._outputs}, "
                f"its card says {[card.input.name]} and {list(card.outputs)}"
            )

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network on `inputs`, as Runner.infer."""
        array = check_input(self.card, inputs)
        results = self._session.run(self._outputs, {self.card.input.name: array})
        return dict(zip(self._outputs, results, strict=True))

    def close(self) -> None:
        """Drop the session."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_file(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run an ONNX file once, without a card: for the parity check of an export."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))
