"""`derma logs`: what the processes of the present or last run logged, in the order of time."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TextIO

import typer

from derma_cli.options import ConfigFile, DataDir, resolve
from derma_common.errors import ResourceError

LOOK_EVERY_S = 0.2
_TIME = re.compile(r'(?:\{"time": ")?(\d{4}-\d\d-\d\dT[\d:.]+Z)')  # of a line for people, and of one of JSON


def logs(
    service: Annotated[
        str | None, typer.Argument(help="A service or instance, such as detector or classifier.1.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show what the processes of the present or last run logged."""
    folder = resolve(config, data_dir).data_dir / "logs"
    if not _files(folder, service):
        there = ", ".join(sorted(f.stem for f in folder.glob("*.log"))) or "none"
        raise ResourceError(f"there are no logs of {service or 'any service'} in {folder}; there is: {there}")
    streams: dict[Path, TextIO] = {}
    with contextlib.ExitStack() as opened:
        while True:
            for file in _files(folder, service):  # a worker that was added meanwhile has a new one
                if file not in streams:
                    streams[file] = opened.enter_context(file.open(encoding="utf-8", errors="replace"))
            for line in in_order([(file.stem, stream) for file, stream in streams.items()]):
                print(line, flush=follow)
            if not follow:
                return
            try:
                time.sleep(LOOK_EVERY_S)
            except KeyboardInterrupt:
                return


def in_order(logs_of: Sequence[tuple[str, TextIO]]) -> Iterator[str]:
    """Yield what (instance, stream) pairs hold, by time; a line without one stays behind its own, with its instance."""
    lines: list[tuple[str, str]] = []
    for instance, stream in logs_of:
        at = ""
        for line in stream:
            found = _TIME.match(line)
            at = found[1] if found else at
            lines.append((at, line.rstrip("\n") if found else f"{instance}: {line.rstrip()}"))
    for _, line in sorted(lines, key=lambda pair: pair[0]):
        yield line


def _files(folder: Path, service: str | None) -> list[Path]:
    return sorted(f for f in folder.glob("*.log") if service in (None, f.stem, f.stem.split(".")[0]))
