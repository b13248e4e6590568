"""`train`: train a classifier on a manifest, or go on with the run that OUT holds; then export OUT/model.

OUT gets checkpoint.pt, log.jsonl (a line per epoch), curves.png, and model/: ONNX, temperature, card.
Make the manifest with `derma data prepare`; run the pipeline with `derma up --classifier OUT/model`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from derma_common.errors import ConfigError, RunError
from derma_common.inference.card import read_card
from derma_training.classifier.about import encoder_of
from derma_training.classifier.architectures import ARCHITECTURES, normalisation
from derma_training.classifier.licences import normalised
from derma_training.classifier.manifest import Manifest, read_manifest
from derma_training.classifier.recipes import RECIPES, ClassWeights, Recipe, Sampling, adapted

MODEL_FOLDER = "model"
SMALLEST_PX = 32


def main(arguments: list[str]) -> None:
    """Train a classifier."""
    options = _parser().parse_args(arguments)
    manifest = read_manifest(options.manifest)
    try:
        summary = _train(options, manifest)
    except KeyboardInterrupt as error:
        raise RunError(f"stopped; the same command goes on from the last checkpoint in {options.out}") from error
    if options.json:
        print(json.dumps(summary))
    elif summary["model"]:
        print(f"{summary['model']}: {summary['id']}, temperature {summary['temperature']}")
        print(_figures(summary["calibration"]))
        print(f"licence: {summary['licence']}")
    else:
        print(_figures(summary["calibration"]))
        print("no model directory: the pipeline knows pictures only, and this network takes metadata too")


def _figures(calibration: dict[str, float]) -> str:
    return "calibration part: " + ", ".join(f"{name} {value:g}" for name, value in calibration.items())


def _train(options: argparse.Namespace, manifest: Manifest) -> dict[str, Any]:
    from derma_training.torchvision_ops import complete_torchvision

    complete_torchvision()
    from derma_training.classifier.distill import Distillation
    from derma_training.classifier.export import export_network
    from derma_training.classifier.job import Budget
    from derma_training.classifier.setup import Setup
    from derma_training.classifier.train import train
    from derma_training.classifier.trained import load_trained
    from derma_training.classifier.weights import is_folded
    from derma_training.device import device_of

    recipe, device = _recipe(options, manifest), device_of(options.device)
    mean, std = normalisation(options.architecture, options.weights)
    setup = Setup(
        architecture=options.architecture,
        classes=manifest.classes,
        size=options.size or ARCHITECTURES[options.architecture].size,
        mean=mean,
        std=std,
        recipe=recipe,
        weights=options.weights,
        teacher=options.teacher,
        fold=options.fold,
        patience=options.patience,
        seed=options.seed,
        sites=encoder_of(manifest.part("train", options.fold)).sites if options.metadata else None,
        folded=is_folded(options.weights),
        kept_stages=options.keep_stages,
        inherited=_inherited(options.weights, options.teacher),
        data=hashlib.sha256(options.manifest.read_bytes()).hexdigest()[:12],
    )
    budget = Budget(options.epochs or recipe.epochs, options.minutes)
    with ExitStack() as stack:
        teacher = None
        if options.teacher:
            teacher = Distillation.open(Path(options.teacher), manifest.classes, mean, std)
            stack.callback(teacher.close)
        train(manifest, options.out, setup, budget, criterion=teacher, device=device, threads=options.threads)
    last = json.loads((options.out / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    if options.metadata:
        return {"model": None, "calibration": last["calibration"]}
    card = export_network(load_trained(options.out), manifest, options.out / MODEL_FOLDER)
    return {
        "model": str(options.out / MODEL_FOLDER),
        "id": card.id,
        "classes": card.classes,
        "temperature": card.temperature,
        "calibration": card.figures["calibration part"],
        "licence": card.licence,
    }


def _inherited(weights: str, teacher: str) -> tuple[str, ...]:
    """Return the licences on the cards of the models to start and to learn from. Raises ModelError: no card."""
    directories = [Path(weights).parent] if weights.endswith(".onnx") else []
    directories += [Path(teacher)] if teacher else []
    return tuple(normalised(read_card(directory).licence.partition("(")[0]) for directory in directories)


def _recipe(options: argparse.Namespace, manifest: Manifest) -> Recipe:
    """Return the recipe with what the command line changes of it. Raises ConfigError."""
    if options.epochs < 0 or options.minutes < 0 or options.lr < 0:
        raise ConfigError("--epochs, --minutes and --lr cannot be negative")
    if options.batch == 1 or options.batch < 0:
        raise ConfigError("--batch must be 2 or more: batch norms compare the pictures of a batch")
    if options.size and options.size < SMALLEST_PX:
        raise ConfigError(f"--size must be {SMALLEST_PX} or more")
    recipe = adapted(RECIPES[options.recipe], bool(options.weights), options.lr)
    sources = {row.source for row in manifest.rows}
    unknown = [name for name, _ in options.emphasis if name not in sources.union(manifest.classes)]
    if unknown:
        raise ConfigError(
            f"--emphasis {unknown[0]}: the manifest has the classes {', '.join(manifest.classes)} and the sources "
            f"{', '.join(sorted(sources))}"
        )
    changes = {
        "batch": options.batch,
        "sampling": options.sampling,
        "class_weights": options.class_weights,
        "beta": options.beta,
        "emphasis": tuple(one for one in options.emphasis if one[0] in manifest.classes),
        "source_emphasis": tuple(one for one in options.emphasis if one[0] not in manifest.classes),
    }
    return replace(recipe, **{name: value for name, value in changes.items() if value})


def _emphasis(words: str) -> tuple[str, float]:
    name, _, factor = words.rpartition("=")
    if not name or not factor.replace(".", "", 1).isdecimal() or float(factor) == 0.0:
        raise argparse.ArgumentTypeError(f"{words!r} is not NAME=FACTOR, a number above 0")
    return name, float(factor)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="derma train classifier", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--manifest", type=Path, required=True, help="CSV made by `derma data prepare`")
    add("--out", type=Path, required=True, help="folder of the run; its name becomes the model's")
    add("--architecture", choices=tuple(ARCHITECTURES), default="efficientnet_b0", metavar="NAME", help=_names())
    add(
        "--weights",
        default="",
        help="first weights: .safetensors, .pt (state dict), model.onnx of derma, folded MobileNetV2 (.npz), or `hub`",
    )
    add("--recipe", choices=tuple(RECIPES), default="derma", help="derma, or one of the papers'")
    add("--size", type=int, default=0, help="px of the input (default: the architecture's)")
    add("--epochs", type=int, default=0, help="default: the recipe's")
    add("--minutes", type=float, default=0.0, help="wall-clock budget instead of epochs")
    add("--fold", type=int, default=0, help="held back for calibration (default 0)")
    add("--batch", type=int, default=0, help="pictures in a step (default: the recipe's)")
    add("--lr", type=float, default=0.0, help="highest learning rate (default: the recipe's)")
    add("--sampling", choices=get_args(Sampling), help="over or under: classes drawn equally often")
    add(
        "--emphasis",
        type=_emphasis,
        action="append",
        default=[],
        metavar="NAME=F",
        help="draw a class F times as often, or within each class the pictures of a source",
    )
    add("--class-weights", choices=get_args(ClassWeights), help="what a mistake costs: 1 / n, or 1 / effective number")
    add("--beta", type=float, default=0.0, help="of the effective number (default 0.999)")
    add("--keep-stages", type=int, default=0, metavar="N", help="the first N stages of an EfficientNet never learn")
    add("--patience", type=int, default=0, help="stop after so many epochs without a better BMA; keep the best")
    add("--teacher", default="", metavar="DIR", help="a model directory with the same classes to learn from too")
    add("--metadata", action="store_true", help="use age, sex and site too (for study: such a network is not exported)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=int, default=2)
    add("--seed", type=int, default=0)
    add("--json", action="store_true", help="print the outcome as one JSON document")
    return parser


def _names() -> str:
    return f"one of {', '.join(ARCHITECTURES)} (default efficientnet_b0)"
