"""A runner without a network, for tests, load models and dry runs of an integration.

The "model file" is JSON. Keys, all optional: `service_ms` (how long one call takes), `boxes` and `scores`
(constant detector outputs), `logits` (constant classifier output), `abort_above` and `hang_above` (the process
aborts, or hangs, when the mean of the first input channel exceeds the value): a crop that kills its reader.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from derma_common.errors import ModelError
from derma_common.inference.card import InputSpec, ModelCard, sha256_of, write_card
from derma_common.inference.runner import Array, Runner, check_input

TWO_LESIONS = {"boxes": [[100, 100, 150, 150], [200, 180, 260, 230]], "scores": [[0.9], [0.8]]}  # of a 416 px input


def fake_detector(directory: Path, **behaviour: Any) -> Path:
    """Make a model directory of a detector that finds the same two lesions in every picture."""
    spec = InputSpec("image", 416, 416)
    return _write(directory, "detector", spec, ("boxes", "scores"), ("lesion",), TWO_LESIONS | behaviour)


def fake_classifier(directory: Path, **behaviour: Any) -> Path:
    """Make a model directory of a classifier that gives every crop the same probabilities."""
    spec = InputSpec("image", 64, 64, max_batch=16)
    classes = ("benign", "melanoma", "unknown")
    return _write(directory, "classifier", spec, ("logits",), classes, {"logits": [1, 2, 0]} | behaviour)


def _write(
    directory: Path, kind: Literal["detector", "classifier"], spec: InputSpec, outputs: tuple[str, ...],
    classes: tuple[str, ...], behaviour: Mapping[str, Any],
) -> Path:  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "behaviour.json"
    file.write_text(json.dumps(behaviour), encoding="utf-8")
    card = ModelCard(
        name=directory.name, kind=kind, architecture="fake", file=file.name, sha256=sha256_of(file), input=spec,
        outputs=outputs, classes=classes, licence="none", runner="fake",
    )  # fmt: skip
    write_card(card, directory)
    return directory


class FakeRunner(Runner):
    """Answers with constants after a stated time."""

    name = "fake"

    def __init__(self, card: ModelCard, path: Path) -> None:
        """Read the behaviour from the JSON file `path`. Raises ModelError when it is none."""
        try:
            self._behaviour: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{card.name}: {path} is no behaviour file: {error}") from error
        self.card = card

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer for each picture of `inputs` with the constants, as Runner.infer."""
        array = check_input(self.card, inputs)
        brightest = float(array[:, 0].mean(axis=(1, 2)).max())
        if brightest > self._behaviour.get("abort_above", np.inf):
            os.abort()
        if brightest > self._behaviour.get("hang_above", np.inf):
            time.sleep(3600)
        time.sleep(self._behaviour.get("service_ms", 0.0) / 1000)
        return {name: self._constant(name, len(array)) for name in self.card.outputs}

    def _constant(self, name: str, n: int) -> Array:
        classes = len(self.card.classes)
        if name == "boxes":
            value = np.asarray(self._behaviour.get("boxes", []), dtype=np.float32).reshape(-1, 4)
        elif name == "scores":
            value = np.asarray(self._behaviour.get("scores", []), dtype=np.float32).reshape(-1, classes)
        else:
            value = np.asarray(self._behaviour.get("logits", [0.0] * classes), dtype=np.float32)
        return np.repeat(value[None], n, axis=0)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
