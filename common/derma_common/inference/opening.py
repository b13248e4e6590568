"""From a model's directory to an opened network: the one place that knows all runners."""

from __future__ import annotations

import logging
from pathlib import Path

from derma_common.errors import ModelError, UserError
from derma_common.inference.card import ModelCard, read_card, verified_file
from derma_common.inference.choice import AUTO, CPU, ONNX, PROVIDERS, TENSORRT, RunnerChoice, resolve
from derma_common.inference.fake import FakeRunner
from derma_common.inference.onnx import OnnxRunner
from derma_common.inference.probe import probe
from derma_common.inference.runner import Runner

log = logging.getLogger(__name__)


def open_runner(directory: Path, kind: str, threads: int, choice: RunnerChoice = CPU) -> tuple[ModelCard, Runner]:
    """Open the model in `directory` after checking that it is a `kind` and that its file is the card's.

    `threads` bounds the CPU threads of one inference. Raises ModelError, and ResourceError when a runner that was
    chosen by its name cannot run here; when the choice is "auto" the CPU takes over and the log says why.
    """
    card = read_card(directory)
    if card.kind != kind:
        raise ModelError(f"{directory} is a {card.kind}, a {kind} is needed here")
    path = verified_file(card, directory)
    if card.runner == "fake":
        return card, FakeRunner(card, path)
    if card.runner != "onnx":
        raise ModelError(f"{directory}: no runner is called {card.runner!r} (there are: onnx, fake)")
    if choice.runner != ONNX:
        try:
            runner = _on_gpu(directory, card, path, threads, choice)
        except UserError as error:
            if choice.runner != AUTO:
                raise
            log.warning("%s; %s runs on the CPU", error, card.name)
        else:
            if runner is not None:
                return card, runner
    return card, OnnxRunner(card, path, threads)


def _on_gpu(directory: Path, card: ModelCard, path: Path, threads: int, choice: RunnerChoice) -> Runner | None:
    """Open the network on a GPU; None when the choice comes to the CPU."""
    chosen, said = resolve(choice, probe())
    if said:
        log.warning("%s", said)
    if chosen.runner == TENSORRT:
        # imported here: it judges engines through the decoders, which open their networks through this module
        from derma_common.inference.building import prepare

        return prepare(directory, chosen, probe()).runner
    if chosen.runner in PROVIDERS:
        return OnnxRunner(card, path, threads, chosen.runner, PROVIDERS[chosen.runner], chosen.gpu)
    return None
