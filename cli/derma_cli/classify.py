"""`derma classify`: look at single pictures at once, without starting a run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from derma_cli.drawings import Drawings
from derma_cli.oneshot import Examiner, Lesion
from derma_cli.options import TILE, AsJson, ConfigFile, DataDir, resolve
from derma_cli.views import in_view
from derma_common.config import tile_px_of
from derma_common.errors import SourceError
from derma_common.inference.explain import NOTABLE
from derma_common.preprocess import Image
from derma_common.recordings import Picture, PictureFiles, open_recording, shown
from derma_common.seqset import SeqSet
from derma_common.taxonomy import View, find_view

TOLD = "research software, not for clinical use"
SHOWN = 3  # classes of a line


def classify(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Pictures, folders of pictures, or quoted patterns ('*.jpg').")
    ],
    whole_image: Annotated[
        bool, typer.Option("--whole-image", help="Each picture is a lesion's close-up: classify its middle square.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show where the first class is seen: cover parts, see what it loses.")
    ] = False,
    view: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Tell other classes: live, isic2019, ham10000, pad-ufes-20, blog, …"),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to draw results (default: DATA_DIR/classified; none with --json)."),
    ] = None,
    tile: Annotated[str, TILE] = "0",
    detector: Annotated[str | None, typer.Option(help="Detector model: a shipped name or a folder.")] = None,
    classifier: Annotated[str | None, typer.Option(help="Classifier model: a shipped name or a folder.")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Find and classify the lesions of single pictures at once. Nothing is stored but the drawn results."""
    told = find_view(view) if view is not None else None
    tile_px = tile_px_of(tile)
    settings = resolve(config, data_dir, {"detector.model": detector, "classifier.model": classifier})
    if pictures is None and not as_json:
        pictures = settings.data_dir / "classified"
    drawings = Drawings(pictures) if pictures is not None else None
    print(TOLD, file=sys.stderr)
    results: list[dict[str, Any]] = []
    unreadable: list[dict[str, str]] = []
    with Examiner(settings, len(os.sched_getaffinity(0)), tile_px, whole_image, explain) as examiner:
        models = {
            "detector": examiner.detector and examiner.detector.card.id,
            "classifier": examiner.classifier.card.id,
        }
        if told is not None:
            told.membership(examiner.classifier.card.classes)  # refused before the first picture is read
        for picture in _all_pictures(images):
            if picture.image is None:
                unreadable.append({"file": picture.origin, "error": picture.error})
                continue
            lesions = examiner.examine(picture.image)
            drawn = drawings.write(picture.origin, picture.image, _told(lesions, told)) if drawings else None
            results.append(_as_json(picture.origin, picture.image, lesions, told, drawn))
            if not as_json:
                print("\n".join(_lines(results[-1])), flush=True)
    if as_json:
        print(json.dumps({"models": models, "pictures": results, "unreadable": unreadable}, ensure_ascii=False))
    elif any(not result["lesions"] for result in results):
        print("no lesion found? --whole-image classifies a close-up that the lesion fills", file=sys.stderr)
    _complain([bad["error"] for bad in unreadable], len(results))


def _told(lesions: Sequence[Lesion], view: View | None) -> Sequence[Lesion]:
    """Return the lesions with the probabilities that are to be shown."""
    if view is None:
        return lesions
    return [replace(lesion, probabilities=in_view(view, lesion.probabilities)) for lesion in lesions]


def _complain(errors: Sequence[str], examined: int) -> None:
    """Say at the end what could not be read. Raises SourceError when there is anything."""
    if not errors:
        return
    for error in errors[:-1]:
        print(f"derma: {error}", file=sys.stderr)
    total = examined + len(errors)
    raise SourceError(errors[-1] + (f"; {len(errors)} of {total} pictures were not examined" if total > 1 else ""))


def _all_pictures(images: Sequence[str]) -> Iterator[Picture]:
    """Yield every picture of the arguments, its path as origin; one that cannot be read without an image."""
    for text in images:
        try:
            recording = open_recording(text)
            if not isinstance(recording, PictureFiles):
                raise SourceError(f"{text} is no picture; `derma up {text}` examines recordings and cameras")
            for picture in recording.pictures(SeqSet()):
                file = recording.files[picture.seq]
                yield Picture(picture.seq, shown(file), picture.image, picture.error)
        except SourceError as error:
            yield Picture(0, shown(text), None, str(error))


def _as_json(
    file: str, image: Image, lesions: Sequence[Lesion], view: View | None, drawn: Path | None
) -> dict[str, Any]:
    height, width = image.shape[:2]
    return {
        "file": file, "width": width, "height": height, "lesions": [_lesion_json(lesion, view) for lesion in lesions],
        "picture": shown(drawn) if drawn else None,
    }  # fmt: skip


def _lesion_json(lesion: Lesion, view: View | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "box": [round(v, 2) for v in lesion.box], "score": None if lesion.score is None else round(lesion.score, 4),
        "probabilities": {name: round(p, 6) for name, p in lesion.probabilities.items()},
    }  # fmt: skip
    if view is not None:
        found["view"] = in_view(view, lesion.probabilities)
    if lesion.explanation is not None:
        heat = lesion.explanation.heat
        y, x = np.unravel_index(int(heat.argmax()), heat.shape)
        left, top, right, _ = lesion.square
        scale = (right - left) / heat.shape[0]
        found["explanation"] = {
            "class": lesion.explanation.of, "largest_loss": round(float(heat.max()), 4),
            "at": [round(left + (x + 0.5) * scale, 1), round(top + (y + 0.5) * scale, 1)],
        }  # fmt: skip
    return found


def _lines(result: dict[str, Any]) -> Iterator[str]:
    n = len(result["lesions"])
    yield f"{result['file']}  {result['width']} x {result['height']} px: {n} lesion{'' if n == 1 else 's'}"
    for number, lesion in enumerate(result["lesions"], start=1):
        ranked = sorted(lesion.get("view", lesion["probabilities"]).items(), key=lambda item: -item[1])[:SHOWN]
        box = " ".join(f"{v:6.1f}" for v in lesion["box"])
        score = "" if lesion["score"] is None else f"  score {lesion['score']:.2f}"
        yield f"  {number:<3} box {box}{score}  " + "  ".join(f"{name} {p:.2f}" for name, p in ranked)
        if why := lesion.get("explanation"):
            (x, y), loss = why["at"], why["largest_loss"]
            where = f"where ({x:.0f}, {y:.0f}) is covered" if loss >= NOTABLE else "wherever it is covered"
            yield f"      {why['class']} loses at most {loss:.2f} {where}"
    if result["picture"]:
        drawn, here = Path(result["picture"]), Path.cwd()
        yield f"  drawn: {drawn.relative_to(here) if drawn.is_relative_to(here) else drawn}"
