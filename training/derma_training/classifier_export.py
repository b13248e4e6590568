"""From a checkpoint to a model directory: ONNX, checked against PyTorch, and a calibrated card."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from derma_common.errors import ModelError
from derma_common.inference.card import InputSpec, ModelCard, sha256_of, write_card
from derma_common.preprocess import softmax
from derma_training.classifier_checkpoint import read_checkpoint
from derma_training.classifier_manifest import CLASSES
from derma_training.classifier_metrics import accuracy, balanced_accuracy, calibration_error, fit_temperature
from derma_training.classifier_pack import Pack
from derma_training.classifier_train import MEAN, STD, Recipe, build, predict_logits

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
    "Other cameras, body sites (nails, mucosa), children and rare diagnoses are not covered; few pictures of DF, VASC, "
    "SCC and AK make their figures coarse.",
    "UNK means unlike a lesion of the eight classes, in this data: healthy skin, cloth, rulers and the like; "
    "an unknown lesion is usually given one of the eight classes.",
    "Phone classes SCC and MEL rest on 23 and 15 training pictures.",
)


def load_average(run: Path) -> tuple[Any, Recipe, bool]:
    """Return a run's averaged network, its recipe, and whether it was warm-started. Raises ModelError."""
    state = read_checkpoint(run)
    try:
        recipe = Recipe(**state["recipe"])
        model = build(recipe)
        model.load_state_dict(state["average"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{run} holds no classifier checkpoint: {str(error).splitlines()[0]}") from error
    return model.eval(), recipe, bool(state["warm_started"])


def export_onnx(model: Any, path: Path, size: int) -> None:
    """Write `path`, one file: input `image` (N, 3, size, size), output `logits` (N, C), any N."""
    draft = path.with_suffix(".part")
    example = torch.zeros(2, 3, size, size)
    axes = {"image": {0: "n"}, "logits": {0: "n"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter deprecates itself; its successor needs one more package
        torch.onnx.export(
            model.to(memory_format=torch.contiguous_format).eval(),
            (example,),
            str(draft),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    draft.replace(path)


def parity(model: Any, path: Path, images: npt.NDArray[np.float32]) -> float:
    """Return the largest difference of a logit between PyTorch and ONNX Runtime; images: (N, 3, S, S)."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = np.asarray(session.run(["logits"], {"image": images})[0])
    with torch.no_grad():
        wanted = model(torch.from_numpy(images)).numpy()
    return float(np.abs(found - wanted).max())


def export_model(run: Path, pack: Pack, directory: Path, size: int | None = None) -> ModelCard:
    """Export a run's averaged network to `directory`, its temperature fitted on the calibration part.

    size: px of the input, else the recipe's. Raises ModelError when ONNX Runtime does not agree with PyTorch.
    """
    model, recipe, warm_started = load_average(run)
    size = size or recipe.size
    indices = pack.where("calibration")
    truth = np.asarray([CLASSES.index(pack.items[i].label) for i in indices], dtype=np.int64)
    logits = predict_logits(model, pack, indices, size)
    temperature = fit_temperature(logits, truth)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / MODEL_FILE
    export_onnx(model, path, size)
    images = np.random.default_rng(0).normal(0, 0.5, (3, 3, size, size)).astype(np.float32)
    difference = parity(model, path, images)
    print(f"parity with PyTorch: largest difference of a logit {difference:.2e}")
    if not difference <= PARITY:
        raise ModelError(f"{path} differs from PyTorch by {difference:.1e}, more than {PARITY}")
    figures = {
        "calibration part": {
            "n": len(truth),
            "accuracy": round(accuracy(logits, truth), 4),
            "bma": round(balanced_accuracy(logits, truth), 4),
            "ece": round(calibration_error(softmax(logits, temperature), truth), 4),
        },
        "parity_with_pytorch": float(f"{difference:.2e}"),
    }
    card = _card(directory.name, recipe, path, size, temperature, figures, warm_started)
    write_card(card, directory)
    return card


def _card(
    name: str,
    recipe: Recipe,
    path: Path,
    size: int,
    temperature: float,
    figures: dict[str, Any],
    warm_started: bool,
) -> ModelCard:
    return ModelCard(
        name=name,
        kind="classifier",
        architecture=recipe.architecture,
        file=path.name,
        sha256=sha256_of(path),
        input=InputSpec("image", size, size, MEAN, STD, MAX_BATCH),
        outputs=("logits",),
        classes=CLASSES,
        licence=LICENCE,
        temperature=round(temperature, 4),
        training_data=(*TRAINING_DATA, *([WARM_START_DATA] if warm_started else [])),
        figures=figures,
        notes=NOTES,
    )
