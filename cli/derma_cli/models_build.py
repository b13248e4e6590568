"""`derma models build`: TensorRT engines before they are needed, each judged against its network on real pictures.

For a GPU of this machine the whole chain runs. For a named compute capability (`--sm`) an engine is built without a
GPU, as in a container's build; it is judged when it is first used on a machine that has one.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from derma_cli.options import AsJson, ConfigFile, resolve
from derma_common.errors import ConfigError, ResourceError
from derma_common.inference.building import prebuild, prepare
from derma_common.inference.card import read_card
from derma_common.inference.choice import TENSORRT, RunnerChoice, choice_of, usable
from derma_common.inference.probe import probe
from derma_common.settings import Settings
from derma_common.shipped import model_dir

BAR = 24


def build(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Shipped names or folders; without any, the two of the settings."),
    ] = None,
    gpu: Annotated[int | None, typer.Option(min=0, help="GPU to build for, as nvidia-smi counts.")] = None,
    sm: Annotated[
        str | None, typer.Option(metavar="7.5", help="Compute capability to build for without a GPU.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="fp32|fp16|int8", help="What to calculate in; that of the settings.")
    ] = None,
    engines: Annotated[Path | None, typer.Option(metavar="DIR", help="Where engines lie.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pictures to judge and calibrate on; else the sample recording.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Build TensorRT engines now, so that the first run need not wait, and tell how well they agree."""
    if gpu is not None and sm is not None:
        raise ConfigError("--gpu builds for a GPU that is here, --sm for one that is not: give one of them")
    flags = {f"{kind}.precision": precision for kind in ("detector", "classifier")} | {
        "run.engine_dir": engines and str(engines), "run.engine_pictures": pictures and str(pictures),
    }  # fmt: skip
    settings = resolve(config, None, flags)
    names = models or [settings.detector.model, settings.classifier.model]
    rows = []
    for directory in [model_dir(name) for name in names]:
        choice = _choice(directory, settings, gpu)
        rows.append(_prebuilt(directory, choice, sm) if sm is not None else _prepared(directory, choice))
        if not as_json:
            print("  ".join(str(value) for name, value in rows[-1].items() if name != "figures"))
    if as_json:
        print(json.dumps(rows))


def _choice(directory: Path, settings: Settings, gpu: int | None) -> RunnerChoice:
    section = settings.detector if read_card(directory).kind == "detector" else settings.classifier
    choice = choice_of(section, settings.run)
    return replace(choice, runner=TENSORRT, gpu=max(0, choice.gpu) if gpu is None else gpu)


def _prepared(directory: Path, choice: RunnerChoice) -> dict[str, Any]:
    lacks = usable(probe(), choice.gpu)[TENSORRT]
    if lacks:
        raise ResourceError(
            f"no engine can be judged here: {lacks}; name what to build for, such as --sm 7.5, to build without a GPU"
        )
    with _Bar(f"{directory.name} {choice.precision}") as bar:
        made = prepare(directory, choice, probe(), bar)
    made.runner.close()
    return {"model": made.card.name, "precision": made.precision, "engine": str(made.path),
            "judged": "agrees with its network", "figures": made.verdict.figures}  # fmt: skip


def _prebuilt(directory: Path, choice: RunnerChoice, sm: str) -> dict[str, Any]:
    with _Bar(f"{directory.name} {choice.precision} for SM {sm}") as bar:
        path = prebuild(directory, choice, sm, bar)
    judged = f"not yet: at its first use on a GPU of SM {sm}"
    return {"model": directory.name, "precision": choice.precision, "engine": str(path), "judged": judged}


class _Bar:
    """A line on stderr that moves with what TensorRT does; on a terminal only."""

    def __init__(self, what: str) -> None:
        self._what, self._shown = what, sys.stderr.isatty()

    def __call__(self, phase: str, step: int, total: int) -> None:
        done = BAR * step // max(1, total)
        self._write(f"building {self._what} [{'#' * done}{'.' * (BAR - done)}] {phase}")

    def _write(self, line: str) -> None:
        if self._shown:
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> _Bar:
        self._write(f"building {self._what}")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")
