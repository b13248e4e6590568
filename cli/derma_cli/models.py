"""`derma models`: what networks there are, what each may be used for, how good it is, and whether its file is whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from derma_cli.models_bench import bench
from derma_cli.models_build import build
from derma_cli.options import AsJson
from derma_common.errors import DermaError, ModelError
from derma_common.inference.card import ModelCard, read_card, verified_file
from derma_common.inference.opening import open_runner
from derma_common.shipped import model_dir, shipped_models

app = typer.Typer(
    help="List, show, check and time models, build their engines: shipped ones by name, others by folder.",
    no_args_is_help=True,
)
app.command()(build)
app.command()(bench)
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODEL", help="Shipped names or folders; without any, all shipped."),
]
SHOWN_HASH = 12


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Show the shipped models, one line each."""
    cards = [read_card(directory) for directory in shipped_models()]
    if as_json:
        print(json.dumps([_summary(card) for card in cards], ensure_ascii=False))
        return
    for card in cards:
        size = f"{card.input.width}x{card.input.height}"
        classes = f"{len(card.classes)} class{'es' if len(card.classes) > 1 else ''}"
        print(f"{card.name:<28} {card.kind:<11} {size:<9} {classes:<11} {licence_of(card)}")


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped name or a folder with a card.json.")],
    as_json: AsJson = False,
) -> None:
    """Show a model's card: input, classes, licence, what it was trained on, its figures and limits."""
    directory = model_dir(model)
    card = read_card(directory)
    if as_json:
        print(json.dumps(asdict(card), ensure_ascii=False))
    else:
        print("\n".join(_lines(card, directory)))


@app.command()
def verify(models: Names = None, as_json: AsJson = False) -> None:
    """Check that each network is the file of its card (sha256) and opens with the inputs and outputs that it names."""
    directories = [model_dir(name) for name in models] if models else shipped_models()
    if not directories:
        raise ModelError("there are no shipped models: install derma anew, or name a folder with a card.json")
    found = [(directory, _problem(directory)) for directory in directories]
    if as_json:
        rows = [{"model": str(d), "good": problem is None, "problem": problem} for d, problem in found]
        print(json.dumps(rows, ensure_ascii=False))
    else:
        for directory, problem in found:
            print(f"{'BAD ' if problem else 'good'}  {directory.name}")
    problems = [problem for _, problem in found if problem is not None]
    for problem in problems[:-1]:
        print(f"derma: {problem}", file=sys.stderr)
    if problems:
        raise ModelError(problems[-1])


def _problem(directory: Path) -> str | None:
    try:
        card = read_card(directory)
        verified_file(card, directory)
        open_runner(directory, card.kind, threads=1)[1].close()
    except DermaError as error:
        return str(error)
    return None


def licence_of(card: ModelCard) -> str:
    """Return the licence of a card, with what it forbids in plain words."""
    forbids = any(mark in card.licence.upper() for mark in ("-NC", "NONCOMMERCIAL", "NON-COMMERCIAL"))
    return f"non-commercial weights ({card.licence})" if forbids else card.licence


def _summary(card: ModelCard) -> dict[str, Any]:
    return {
        "name": card.name, "kind": card.kind, "architecture": card.architecture,
        "input_px": [card.input.width, card.input.height], "classes": card.classes, "licence": card.licence,
        "sha256": card.sha256,
    }  # fmt: skip


def _lines(card: ModelCard, directory: Path) -> Iterator[str]:
    yield f"{card.name}  ({card.kind})"
    rows = {
        "folder": directory,
        "architecture": card.architecture,
        "file": f"{card.file}, sha256 {card.sha256[:SHOWN_HASH]}…, runner {card.runner}",
        "input": f"{card.input.width} x {card.input.height} px, at most {card.input.max_batch} at once",
        "outputs": ", ".join(card.outputs),
        "classes": ", ".join(card.classes),
        "licence": licence_of(card),
        "use": card.intended_use,
    }
    if card.kind == "detector":
        rows["thresholds"] = f"score {card.score_threshold:g}, IoU {card.iou_threshold:g}"
    else:
        rows["calibration"] = f"temperature {card.temperature:g}, crop margin {card.crop_margin:g}"
    for name, value in rows.items():
        yield f"  {name:<14}{value}"
    for title, texts in (("trained on", card.training_data), ("notes", card.notes)):
        if texts:
            yield f"  {title}"
            yield from (f"    - {text}" for text in texts)
    if card.figures:
        yield "  figures"
        yield from _tree(card.figures, indent=4)


def _tree(values: Mapping[str, Any], indent: int) -> Iterator[str]:
    """Yield nested figures: short groups on one line, larger ones below their name."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            yield f"{' ' * indent}{name}: {_text(value)}"
        elif any(isinstance(inner, Mapping) for inner in value.values()):
            yield f"{' ' * indent}{name}"
            yield from _tree(value, indent + 2)
        else:
            yield f"{' ' * indent}{name}: {', '.join(f'{key} {_text(inner)}' for key, inner in value.items())}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "–".join(map(_text, value)) if len(value) == 2 else " ".join(map(_text, value))
    return str(value)
