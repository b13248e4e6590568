"""`derma findings`: what was found, as lines, as JSON lines, as pictures, or against a ground truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from derma_cli.options import AsJson, ConfigFile, DataDir, resolve
from derma_cli.pictures import draw_pictures
from derma_cli.truth import compare
from derma_common.errors import ConfigError, ResourceError
from derma_common.store import StoredFinding, StoreReader
from derma_common.taxonomy import View, find_view


def findings(
    run: Annotated[str | None, typer.Option(help="Run id; the latest when not given.")] = None,
    camera: Annotated[str | None, typer.Option(help="Only this camera.")] = None,
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
    """Show the findings of a run."""
    if view is not None and (pictures is not None or truth is not None):
        raise ConfigError("--view tells probabilities; it goes with neither --pictures nor --truth")
    told = find_view(view) if view is not None else None
    settings = resolve(config, data_dir)
    with StoreReader(settings.database) as store:
        chosen = run or store.latest_run()
        if chosen is None or not store.cameras(chosen):
            raise ResourceError(
                f"there is no run {run!r} in {settings.database}" if run else "nothing was examined yet"
            )
        if pictures is not None:
            for line in draw_pictures(store, chosen, camera, pictures):
                print(line, file=sys.stderr)
        elif truth is not None:
            agreement = compare(store, chosen, camera, truth)
            print(json.dumps(agreement.as_json()) if as_json else agreement.line())
        else:
            for finding in store.findings(chosen, camera):
                seen = _in_view(told, finding.probabilities) if told else None
                told_by_others = [
                    _in_view(told, o.probabilities) if told else o.probabilities for o in finding.second_opinions
                ]
                if as_json:
                    extra = {} if seen is None else {"view": seen}
                    print(json.dumps(finding.as_json() | extra, ensure_ascii=False))
                else:
                    print(_line(finding, finding.probabilities if seen is None else seen))
                    for opinion, probabilities in zip(finding.second_opinions, told_by_others, strict=True):
                        print(f"    second opinion  {_ranked(probabilities)}  ({opinion.method}; {opinion.worker})")


def _in_view(view: View, probabilities: dict[str, float]) -> dict[str, float]:
    """Return class of the view -> probability; nothing for a finding that was not classified."""
    if not probabilities:
        return {}
    told = view.of([list(probabilities.values())], list(probabilities))[0]
    return {name: round(float(p), 6) for name, p in zip(view.classes, told, strict=True)}


def _line(f: StoredFinding, probabilities: dict[str, float]) -> str:
    x1, y1, x2, y2 = f.box
    classes = _ranked(probabilities) or f"not classified ({f.missing})"
    where = f.origin or f"frame {f.seq}"
    return f"{f.camera}  {where:<24} {x1:7.1f} {y1:7.1f} {x2:7.1f} {y2:7.1f}  score {f.score:.2f}  {classes}"


def _ranked(probabilities: dict[str, float]) -> str:
    """Return the three likeliest classes."""
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])[:3]
    return "  ".join(f"{name} {p:.2f}" for name, p in ranked)
