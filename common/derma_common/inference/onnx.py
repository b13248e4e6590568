"""The runners on ONNX Runtime: the CPU's, the default on every machine, and its providers for NVIDIA's GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from derma_common.errors import ModelError, ResourceError
from derma_common.inference.card import ModelCard
from derma_common.inference.runner import Array, Runner, check_input

_CPU = "CPUExecutionProvider"


class OnnxRunner(Runner):
    """An ONNX file opened with ONNX Runtime."""

    def __init__(
        self,
        card: ModelCard,
        network: Path | bytes,
        threads: int,
        name: str = "onnx",
        provider: str = _CPU,
        gpu: int = 0,
    ) -> None:
        """Open a file, or its content, with one of ONNX Runtime's execution providers, GPU number `gpu` if it is one's.

        Raises ModelError when it is no ONNX file or its tensors are not the card's, ResourceError when the provider
        cannot be had: ONNX Runtime would go on with the CPU.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # idle threads must not spin: detector and classifiers share the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider not in ort.get_available_providers():
            raise ResourceError(f"{card.name}: this ONNX Runtime has no {provider}; it takes onnxruntime-gpu")
        providers: list[Any] = [_CPU] if provider == _CPU else [(provider, {"device_id": gpu}), _CPU]
        content = network if isinstance(network, bytes) else str(network)
        what = "a converted network" if isinstance(network, bytes) else network
        try:
            self._session = ort.InferenceSession(content, options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelError(f"{card.name}: ONNX Runtime cannot open {what}: {_line(error)}") from error
        used = self._session.get_providers()[0]
        if used != provider:
            raise ResourceError(
                f"{card.name}: {provider} does not start here, ONNX Runtime fell back to {used}: "
                "CUDA's or cuDNN's libraries are missing, or of another version"
            )
        self.card, self.name = card, name
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


def _line(error: Exception) -> str:
    return " ".join(str(error)[:200].split())


def run_file(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run an ONNX file once, without a card: for the parity check of an export."""
    session = ort.InferenceSession(str(path), providers=[_CPU])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))
