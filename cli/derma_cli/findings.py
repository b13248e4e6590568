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
from derma_common.errors import ResourceError
from derma_common.store import StoredFinding, StoreReader


def findings(
    run: Annotated[str | None, typer.Option(help="Run id; the latest when not given.")] = None,
    camera: Annotated[str | None, typer.Option(help="Only this camera.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw them on the pictures of recorded sources, into DIR.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare the boxes with a drawn recording's ground truth.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show the findings of a run."""
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
                print(json.dumps(finding.as_json(), ensure_ascii=False) if as_json else _line(finding))


def _line(f: StoredFinding) -> str:
    x1, y1, x2, y2 = f.box
    ranked = sorted(f.probabilities.items(), key=lambda item: -item[1])[:3]
    classes = "  ".join(f"{name} {p:.2f}" for name, p in ranked) or f"not classified ({f.missing})"
    where = f.origin or f"frame {f.seq}"
    return f"{f.camera}  {where:<24} {x1:7.1f} {y1:7.1f} {x2:7.1f} {y2:7.1f}  score {f.score:.2f}  {classes}"
