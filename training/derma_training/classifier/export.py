"""From a trained network to a model directory: ONNX, checked against PyTorch, and a calibrated card."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from derma_common.errors import ConfigError, ModelError
from derma_common.inference.card import InputSpec, ModelCard, sha256_of, write_card
from derma_common.inference.onnx import run_file
from derma_common.preprocess import CROP_MARGIN, softmax
from derma_training.classifier.imbalance import learned_counts
from derma_training.classifier.licences import licence_of_model
from derma_training.classifier.manifest import Manifest, Row
from derma_training.classifier.metrics import calibration_error, fit_temperature
from derma_training.classifier.predict import figures, predict_logits, truth_of
from derma_training.classifier.trained import Trained

MODEL_FILE = "model.onnx"
OUTPUTS = ("logits", "features")
MAX_BATCH = 16
OPSET = 17
PARITY = 1e-4  # largest difference allowed between PyTorch and ONNX Runtime, in parts of the largest output
TINY = 1e-6  # outputs below it are compared as if they were of this size
FEW = 50  # training pictures of a class below which its figures are called coarse


class _Exported(nn.Module):  # type: ignore[misc]  # torch is untyped here
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Any) -> tuple[Any, Any]:
        features = self.network.features(images)
        return self.network.classify(features), features


def export_onnx(network: Any, path: Path, size: int) -> None:
    """Write `path`, one file: `image` (N, 3, size, size) -> `logits` (N, C) and `features` (N, D), for any N.

    Raises ConfigError for a network that takes metadata: the pipeline's runner has the picture only.
    """
    if network.about is not None:
        raise ConfigError("a network that takes metadata cannot be exported: the pipeline knows the picture only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter deprecates itself; its successor needs one more package
        torch.onnx.export(
            _Exported(network.cpu().to(memory_format=torch.contiguous_format)).eval(),
            (torch.zeros(2, 3, size, size),),
            str(path),
            input_names=["image"],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "n"} for name in ("image", *OUTPUTS)},
            opset_version=OPSET,
            dynamo=False,
        )


def parity(network: Any, path: Path, images: npt.NDArray[np.float32]) -> float:
    """Return the largest difference between PyTorch and ONNX Runtime, in parts of the largest value of its output.

    images: (N, 3, S, S). Relative, since an absolute difference says nothing of outputs that are tiny or huge.
    """
    found = run_file(path, {"image": images})
    network.eval()
    with torch.no_grad():
        features = network.features(torch.from_numpy(images))
        wanted = {"logits": network.classify(features).numpy(), "features": features.numpy()}
    largest = {name: max(float(np.abs(wanted[name]).max()), TINY) for name in OUTPUTS}
    return max(float(np.abs(found[name] - wanted[name]).max()) / largest[name] for name in OUTPUTS)


def export_network(trained: Trained, manifest: Manifest, directory: Path) -> ModelCard:
    """Write the model directory, its temperature fitted on the calibration part of the manifest.

    Raises ModelError when ONNX Runtime does not agree with PyTorch.
    """
    setup, network, size = trained.setup, trained.model, trained.size
    directory.mkdir(parents=True, exist_ok=True)
    draft = directory / (MODEL_FILE + ".part")
    export_onnx(network, draft, size)
    images = np.random.default_rng(0).normal(0.0, 0.5, (3, 3, size, size)).astype(np.float32)
    difference = parity(network, draft, images)
    if not difference <= PARITY:
        raise ModelError(f"{draft} differs from PyTorch by {difference:.1e}, more than {PARITY}")
    draft.replace(directory / MODEL_FILE)
    learned, calibration = manifest.part("train", setup.fold), manifest.part("calibration", setup.fold)
    logits, truth = (
        predict_logits(network, calibration, size, setup.mean, setup.std),
        truth_of(calibration, setup.classes),
    )
    temperature = fit_temperature(logits, truth)
    recipe = setup.recipe
    counts = {name: sum(row.label == name for row in learned) for name in setup.classes}
    known = figures(logits, truth) | {"ece": calibration_error(softmax(logits, temperature), truth)}
    card = ModelCard(
        name=name_of(directory),
        kind="classifier",
        architecture=setup.architecture,
        file=MODEL_FILE,
        sha256=sha256_of(directory / MODEL_FILE),
        input=InputSpec("image", size, size, setup.mean, setup.std, MAX_BATCH),
        outputs=OUTPUTS,
        classes=setup.classes,
        licence=licence_of_model([*(row.licence for row in (*learned, *calibration)), *setup.inherited]),
        temperature=round(temperature, 4),
        crop_margin=CROP_MARGIN,
        training_data=sources_of(learned),
        class_counts=learned_counts(counts, recipe),
        figures={
            "training": {
                "recipe": recipe.name,
                "epochs": trained.epochs,
                "steps": trained.steps,
                "batch": recipe.batch,
                "minutes": round(trained.elapsed_s / 60.0, 1),
                "size_px": trained.size,
                "pictures": counts,
            },
            "calibration part": {"n": len(truth), **{name: round(value, 4) for name, value in known.items()}},
            "parity_with_pytorch": float(f"{difference:.2e}"),
        },
        notes=notes_of(learned, counts, setup.weights, setup.teacher),
    )
    write_card(card, directory)
    return card


def name_of(directory: Path) -> str:
    """Return the name of the model in a directory: that of its run for RUN/model."""
    directory = directory.resolve()
    return directory.parent.name if directory.name == "model" else directory.name


def sources_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return one line for each source: its name, how many pictures, their licences."""
    counts = Counter(row.source or "unnamed" for row in rows)
    licences = {name: sorted({row.licence for row in rows if (row.source or "unnamed") == name}) for name in counts}
    return tuple(f"{name}: {n} pictures, {', '.join(licences[name])}" for name, n in sorted(counts.items()))


def _start(weights: str) -> str:
    """Return what the first weights were. Only a model of derma has a card that tells their licence."""
    if not weights:
        return "trained from scratch"
    if weights.endswith(".onnx"):
        return f"started from {name_of(Path(weights).parent)}"
    return f"started from weights of {Path(weights).name}, whose own licence applies too"


def notes_of(rows: Sequence[Row], counts: dict[str, int], weights: str, teacher: str) -> tuple[str, ...]:
    """Return what a reader of the card must know: start, few pictures, skin types."""
    few = [f"{name} ({n})" for name, n in counts.items() if n < FEW]
    types = Counter(row.fitzpatrick for row in rows if row.fitzpatrick)
    dark = types["5"] + types["6"]
    notes = ["No clinical claim: a probability is the model's agreement with the labels of its data sets."]
    notes.append(_start(weights))
    if teacher:
        notes.append(f"learned from {name_of(Path(teacher))} too (distillation)")
    if few:
        notes.append(f"fewer than {FEW} training pictures, so coarse figures: {', '.join(few)}")
    notes.append(
        f"skin types V and VI: {dark} of {sum(types.values())} training pictures whose Fitzpatrick type is known"
        if types
        else "the skin types in the training data are not known: expect worse, unmeasured results on dark skin"
    )
    return tuple(notes)
