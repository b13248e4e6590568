"""`derma serve classifier · opinion · ingest`: the workers behind Redis, on any machine that reaches it.

Where Redis is and who we are there come from the `[cloud]` section of the settings. A worker that dies is started again
after a while; an error of the user's ends the command with the worker's own line and exit status.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from derma_cli.archive import PASS_ON, need_extra
from derma_cli.fleet import Fleet, Refused, module
from derma_cli.options import DEFAULT_FILE, ConfigFile, resolve
from derma_cli.scaling import Scaler
from derma_common.cloud.access import access_of
from derma_common.cloud.streams import CLASSIFIERS, Line, LineDown, jobs_key
from derma_common.errors import ConfigError
from derma_common.inference.card import read_card
from derma_common.settings import Settings
from derma_common.shipped import model_dir

TURN_S = 0.25
LOOK_EVERY_S = 1.0
SHARE = 8  # crops that may be before one worker
CALM_S = 60.0

serve = typer.Typer(help="Work for exam rooms elsewhere, through Redis.", no_args_is_help=True)


@serve.command("classifier", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def classifier(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Name or folder; classifier.model of the settings.")] = None,
    least: Annotated[int, typer.Option("--min", min=1, help="Workers that always run.")] = 1,
    most: Annotated[int | None, typer.Option("--max", min=1, help="Workers at most; default: one a core.")] = None,
    config: ConfigFile = None,
) -> None:
    """Classify crops, with as many workers as the backlog wants; --threads, --count, --idle go to each worker."""
    settings = resolve(config, None)
    name = model or settings.classifier.model
    key = jobs_key(read_card(model_dir(name)).sha256)
    most = most if most is not None else max(least, len(os.sched_getaffinity(0)))
    if most < least:
        raise ConfigError(f"--max {most} is below --min {least}")
    scaler = Scaler(least, most, SHARE, CALM_S)
    with closing(Line(access_of(_with_redis(settings).cloud))) as line:
        _keep("derma_classifier.remote", ["--model", name, *context.args], config, _Backlog(line, key, scaler, least))


@serve.command("opinion", context_settings=PASS_ON)
def opinion(context: typer.Context) -> None:
    """Give second opinions on lesions that the rooms are unsure of: --model A --model B."""
    _keep("derma_cloud.opinion", context.args, None, lambda now_s: 1)


@serve.command("ingest", context_settings=PASS_ON)
def ingest(context: typer.Context) -> None:
    """Store the findings of all rooms as Parquet files: --out DIR."""
    need_extra()
    _keep("derma_cloud.ingest", context.args, None, lambda now_s: 1)


class _Backlog:
    """How many classifiers there should be; as many as before while Redis does not say."""

    def __init__(self, line: Line, key: str, scaler: Scaler, workers: int) -> None:
        self._line, self._key, self._scaler, self._workers, self._next_s = line, key, scaler, workers, 0.0

    def __call__(self, now_s: float) -> int:
        if now_s < self._next_s:
            return self._workers
        self._next_s = now_s + LOOK_EVERY_S
        try:
            backlog = self._line.backlog(self._key, CLASSIFIERS)
        except LineDown:  # the workers say so
            return self._workers
        wanted = self._scaler.wanted(now_s, backlog.waiting + backlog.pending)
        if wanted != self._workers:
            print(
                f"{wanted} workers instead of {self._workers}: {backlog.waiting} crops wait, {backlog.pending} are "
                "worked on", file=sys.stderr,
            )  # fmt: skip
            self._workers = wanted
        return self._workers


def _with_redis(settings: Settings) -> Settings:
    if not settings.cloud.redis:
        raise ConfigError("there is no Redis to work for: set cloud.redis, such as rediss://host:6379/0")
    return settings


def _keep(name: str, arguments: list[str], config: Path | None, wanted: Callable[[float], int]) -> None:
    """Keep workers running until asked to end."""
    file = config or (DEFAULT_FILE if DEFAULT_FILE.is_file() and "--config" not in arguments else None)
    fleet = Fleet(module(name, [*(["--config", str(file)] if file else []), *arguments]))
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.set())
    try:
        while not asked.is_set() and not fleet.done:
            now_s = time.monotonic()
            fleet.turn(wanted(now_s), now_s)
            asked.wait(TURN_S)
    except Refused as refused:
        raise typer.Exit(refused.exit_code) from refused
    finally:
        fleet.close()
