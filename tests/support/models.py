"""Model directories with a FakeRunner: real processes, real messages, no network."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from derma_common.inference.card import InputSpec, ModelCard, sha256_of

TWO_LESIONS = {"boxes": [[100, 100, 150, 150], [200, 180, 260, 230]], "scores": [[0.9], [0.8]]}


def fake_detector(directory: Path, **behaviour: Any) -> Path:
    """Make a detector that finds the same two lesions in every picture."""
    card = {"kind": "detector", "outputs": ("boxes", "scores"), "classes": ("lesion",)}
    return _make(directory, InputSpec("image", 416, 416), TWO_LESIONS | behaviour, card)


def fake_classifier(directory: Path, **behaviour: Any) -> Path:
    """Make a classifier that gives every crop the same probabilities."""
    card = {"kind": "classifier", "outputs": ("logits",), "classes": ("benign", "melanoma", "unknown")}
    return _make(directory, InputSpec("image", 64, 64, max_batch=16), {"logits": [1, 2, 0]} | behaviour, card)


def _make(directory: Path, spec: InputSpec, behaviour: dict[str, Any], card: dict[str, Any]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "behaviour.json"
    file.write_text(json.dumps(behaviour))
    made = ModelCard(
        name=directory.name, architecture="fake", file=file.name, sha256=sha256_of(file), input=spec, licence="none",
        runner="fake", **card,
    )  # fmt: skip
    (directory / "card.json").write_text(json.dumps(asdict(made)))
    return directory
