"""From a model's directory to an opened network: the one place that knows all runners."""

from __future__ import annotations

from pathlib import Path

from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard, read_card, verified_file
from derma_common.inference.fake import FakeRunner
from derma_common.inference.onnx import OnnxRunner
from derma_common.inference.runner import Runner


def open_runner(directory: Path, kind: str, threads: int) -> tuple[ModelCard, Runner]:
    """Open the model in `directory` after checking that it is a `kind` and that its file is the card's.

    `threads` bounds the CPU threads of one inference. Raises ModelError.
    """
    card = read_card(directory)
    if card.kind != kind:
        raise ModelError(f"{directory} is a {card.kind}, a {kind} is needed here")
    path = verified_file(card, directory)
    if card.runner == "onnx":
        return card, OnnxRunner(card, path, threads)
    if card.runner == "fake":
        return card, FakeRunner(card, path)
    raise ModelError(f"{directory}: no runner is called {card.runner!r} (there are: onnx, fake)")
