"""From a checkpoint to a model directory: ONNX, checked against PyTorch, and a calibrated card."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from derma_common.errors import ModelError
from derma_common.inference.card import InputSpec, ModelCard, sha256_of, write_card
from derma_common.inference.onnx import run_file
from derma_common.preprocess import CROP_MARGIN, softmax
from derma_training.classifier.checkpoint import read_checkpoint
from derma_training.classifier.manifest import CLASSES
from derma_training.classifier.metrics import accuracy, balanced_accuracy, calibration_error, fit_temperature
from derma_training.classifier.pack import Pack
from derma_training.classifier.train import MEAN, STD, Recipe, build, predict_logits

MODEL_FILE = "model.onnx"
MAX_BATCH = 16
OPSET = 17
PARITY = 1e-4  # largest difference of a logit allowed between PyTorch and ONNX Runtime

LICENCE = "CC BY-NC 4.0 (trained on BY-NC data): non-commercial research"
TRAINING_DATA = (
    "HAM10000 (Tschandl 2018), 224 px, train split by lesion, CC BY-NC 4.0",
    "ISIC archive UDA-1 part (MEL, NV), CC0",
    "ISIC 2019 extra pictures at 180 px, no lesion of the HAM10000 val split, treated as CC BY-NC",
    "PAD-UFES-20 phone photographs, train split by patient, CC BY 4.0 (ACK as AK, NEV as NV, SEK as BKL)",
    "UNK: healthy forearm frames (MIT), lesion-free patches of 6 iToBoS 2024 tiles (CC BY-SA 4.0), drawn distractors",
)
WARM_START_DATA = "starting features: MobileNetV2 1.0 trained on ImageNet (Keras Applications, Apache-2.0)"
NOTES = (
    "No clinical claim: a probability is the model's agreement with labels of research data sets.",
    "Dermoscopy is mostly HAM10000 (Austria, Australia), mostly light skin; phone photographs are mostly Fitzpatrick "
    "types 1-3, types 5-6 are nearly absent: expect worse, unmeasured results on dark skin.",
    "Other cameras, body sites (nails, mucosa), children and rare diseases are not covered; few pictures of DF, VASC, "
    "SCC and AK make their figures coarse.",
    "UNK means unlike a lesion of the eight classes, in this data: healthy skin, cloth, rulers and the like; "
    "an unknown lesion is usually given one of the eight classes.",
    "Phone classes SCC and MEL rest on 23 and 15 training pictures.",
)


@dataclass(frozen=True)
class Trained:
    """What a run's checkpoint holds for export: the averaged network and how it came about."""

    model: Any
    recipe: Recipe
    warm_started: bool
    steps: int
    elapsed_s: float


def load_trained(run: Path) -> Trained:
    """Return a run's averaged network. Raises ModelError."""
    state = read_checkpoint(run)
    try:
        recipe = Recipe(**state["recipe"])
        model = build(recipe)
        model.load_state_dict(state["average"])
        return Trained(model.eval(), recipe, bool(state["warm_started"]), int(state["step"]), float(state["elapsed_s"]))
    except (KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{run} holds no classifier checkpoint: {str(error).splitlines()[0]}") from error


def export_onnx(model: Any, path: Path, size: int) -> None:
    """Write `path`, one file: input `image` (N, 3, size, size), output `logits` (N, C), any N."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter deprecates itself; its successor needs one more package
        torch.onnx.export(
            model.to(memory_format=torch.contiguous_format).eval(),
            (torch.zeros(2, 3, size, size),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )


def parity(model: Any, path: Path, images: npt.NDArray[np.float32]) -> float:
    """Return the largest difference of a logit between PyTorch and ONNX Runtime; images: (N, 3, S, S)."""
    found = run_file(path, {"image": images})["logits"]
    with torch.no_grad():
        wanted = model(torch.from_numpy(images)).numpy()
    return float(np.abs(found - wanted).max())


def export_model(run: Path, pack: Pack, directory: Path, size: int | None = None) -> ModelCard:
    """Export a run's averaged network to `directory`, its temperature fitted on the calibration part.

    size: px of the input, else the recipe's. Raises ModelError when ONNX Runtime does not agree with PyTorch.
    """
    trained = load_trained(run)
    size = size or trained.recipe.size
    indices = pack.where("calibration")
    truth = np.asarray([CLASSES.index(pack.items[i].label) for i in indices], dtype=np.int64)
    logits = predict_logits(trained.model, pack, indices, size)
    temperature = fit_temperature(logits, truth)
    directory.mkdir(parents=True, exist_ok=True)
    draft = directory / (MODEL_FILE + ".part")
    export_onnx(trained.model, draft, size)
    images = np.random.default_rng(0).normal(0, 0.5, (3, 3, size, size)).astype(np.float32)
    difference = parity(trained.model, draft, images)
    print(f"parity with PyTorch: largest difference of a logit {difference:.2e}")
    if not difference <= PARITY:
        raise ModelError(f"{draft} differs from PyTorch by {difference:.1e}, more than {PARITY}")
    draft.replace(directory / MODEL_FILE)
    figures = {
        "training": {
            "steps": trained.steps,
            "batch": trained.recipe.batch,
            "minutes": round(trained.elapsed_s / 60.0, 1),
        },
        "calibration part": {
            "n": len(truth),
            "accuracy": round(accuracy(logits, truth), 4),
            "bma": round(balanced_accuracy(logits, truth), 4),
            "ece": round(calibration_error(softmax(logits, temperature), truth), 4),
        },
        "parity_with_pytorch": float(f"{difference:.2e}"),
    }
    card = _card(directory, trained, size, temperature, figures)
    write_card(card, directory)
    return card


def _card(directory: Path, trained: Trained, size: int, temperature: float, figures: dict[str, Any]) -> ModelCard:
    return ModelCard(
        name=directory.name,
        kind="classifier",
        architecture=trained.recipe.architecture,
        file=MODEL_FILE,
        sha256=sha256_of(directory / MODEL_FILE),
        input=InputSpec("image", size, size, MEAN, STD, MAX_BATCH),
        outputs=("logits",),
        classes=CLASSES,
        licence=LICENCE,
        temperature=round(temperature, 4),
        crop_margin=CROP_MARGIN,
        training_data=(*TRAINING_DATA, *([WARM_START_DATA] if trained.warm_started else [])),
        figures=figures,
        notes=NOTES,
    )
