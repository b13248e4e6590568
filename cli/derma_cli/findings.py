"""`derma findings`: what was found, as lines, as JSON lines, as pictures, or against a ground truth."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from derma_cli.options import AsJson, ConfigFile, DataDir, resolve
from derma_cli.pictures import draw_pictures
from derma_cli.truth import compare
from derma_cli.views import in_view
from derma_common.errors import ConfigError, ResourceError
from derma_common.store import StoredFinding, StoreReader
from derma_common.taxonomy import find_view

SHOWN_RUNS = 5  # of an error's line
Told = Callable[[dict[str, float]], dict[str, float]]  # class -> probability, into the classes to show


def findings(
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="A run, by the id of its summary; the latest when not given.")
    ] = None,
    camera: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this camera.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw them on the pictures of recorded sources, into DIR.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare the boxes with a drawn recording's ground truth.")
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Tell the probabilities in other classes: live, isic2019, ham10000, pad-ufes-20, blog, or a file's.",
        ),
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show what was found in a run: a line for each box, with the network's likeliest classes."""
    if view is not None and truth is not None:
        raise ConfigError("--view tells probabilities, --truth compares boxes: leave out one of the two")
    told: Told = partial(in_view, find_view(view)) if view is not None else dict
    settings = resolve(config, data_dir)
    with StoreReader(settings.database) as store:
        chosen = _chosen(store, run, camera)
        if pictures is not None:
            for line in draw_pictures(store, chosen, camera, pictures, told):
                print(line, file=sys.stderr)
        elif truth is not None:
            agreement = compare(store, chosen, camera, truth)
            print(json.dumps(agreement.as_json()) if as_json else agreement.line())
        elif as_json:
            for finding in store.findings(chosen, camera):
                extra = {"view": told(finding.probabilities)} if view is not None else {}
                print(json.dumps(finding.as_json() | extra, ensure_ascii=False))
        else:
            _table(store, chosen, camera, told)


def _chosen(store: StoreReader, run: str | None, camera: str | None) -> str:
    """Return the run to show. Raises ResourceError and ConfigError for one, or a camera, that is not there."""
    runs = store.runs()
    if not runs:
        raise ResourceError("nothing was examined yet")
    if run is not None and run not in runs:
        raise ResourceError(f"there is no run {run!r}; the latest are {', '.join(runs[:SHOWN_RUNS])}")
    chosen = run or runs[0]
    cameras = store.cameras(chosen)
    if camera is not None and camera not in cameras:
        raise ConfigError(f"run {chosen} has no camera {camera!r}; it has {', '.join(cameras)}")
    return chosen


def _table(store: StoreReader, run: str, camera: str | None, told: Told) -> None:
    wide = max(len("camera"), *map(len, store.cameras(run)))
    found = 0
    for found, f in enumerate(store.findings(run, camera), start=1):
        if found == 1:
            print(
                f"{'camera':<{wide}}  {'picture':<24} {'x1':>7} {'y1':>7} {'x2':>7} {'y2':>7}  score  likeliest classes"
            )
        print(_line(f, wide, told(f.probabilities)))
        for opinion in f.second_opinions:
            models = ", ".join(opinion.models)
            print(f"    second opinion  {_ranked(told(opinion.probabilities))}  ({models}; {opinion.worker})")
    if not found:
        print(f"run {run}: no lesion was found (pictures examined: {store.outcomes(run).delivered})", file=sys.stderr)


def _line(f: StoredFinding, wide: int, probabilities: dict[str, float]) -> str:
    x1, y1, x2, y2 = f.box
    classes = _ranked(probabilities) or f"not classified ({f.missing})"
    where = f.origin or f"frame {f.seq}"
    return f"{f.camera:<{wide}}  {where:<24} {x1:7.1f} {y1:7.1f} {x2:7.1f} {y2:7.1f}  {f.score:5.2f}  {classes}"


def _ranked(probabilities: dict[str, float]) -> str:
    """Return the three likeliest classes."""
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])[:3]
    return "  ".join(f"{name} {p:.2f}" for name, p in ranked)
