"""`derma outbox`: what waits to leave the machine, what was set aside, and what to do about it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from derma_cli.options import AsJson, ConfigFile, DataDir, resolve
from derma_common.cloud.access import access_of
from derma_common.cloud.identity import identity_of
from derma_common.cloud.streams import Line, LineDown
from derma_common.errors import ConfigError, ResourceError, error_of
from derma_common.outbox import KINDS, Outbox, Waiting

app = typer.Typer(help="What waits to leave the machine.", no_args_is_help=True)

Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID…]", help="Entries, as `derma outbox ls` shows them.")]
All = Annotated[bool, typer.Option("--all", help="Every one of them.")]


@app.command("ls")
def ls(
    count: Annotated[int, typer.Option("-n", help="How many of those that wait to show.")] = 10,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show what waits, in the order of leaving, and all that was set aside."""
    settings = resolve(config, data_dir)
    with Outbox(settings.database) as outbox:
        totals, given_up, oldest_ns = outbox.totals(), outbox.given_up(), outbox.oldest_wall_ns()
        age_s = max(0.0, (time.time_ns() - oldest_ns) / 1e9) if oldest_ns else 0.0
        if as_json:
            document = {
                "waiting": {kind: {"entries": totals[kind].rows, "bytes": totals[kind].bytes} for kind in KINDS},
                "oldest_s": round(age_s, 1),
                "quarantined": [asdict(row) for row in outbox.quarantined()],
                "given_up": {f"{kind}.{reason}": n for (kind, reason), n in given_up.items()},
                "next": [asdict(row) for row in outbox.first(count)],
            }
            print(json.dumps(document))
            return
        for kind in KINDS:
            of = totals[kind]
            print(f"{kind:<9} {of.rows} waiting, {of.bytes} bytes, {of.quarantined} set aside")
        print(f"oldest    {age_s:.0f} s")
        for (kind, reason), n in given_up.items():
            print(f"{kind:<9} {n} given up ({reason})")
        for row in (*outbox.first(count), *outbox.quarantined()):
            print(_line(row))


def _line(row: Waiting) -> str:
    number = f"#{row.number}" if row.number >= 0 else ""
    error = f"  set aside after {row.attempts}: {row.error}" if row.error else ""
    return f"{row.id:>8}  priority {row.priority}  {row.kind:<8}  {row.run} {row.camera} {row.seq}{number}{error}"


@app.command("retry")
def retry(ids: Ids = None, everything: All = False, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Put what was set aside back in line."""
    with Outbox(resolve(config, data_dir).database) as outbox:
        print(f"{outbox.retry(_chosen(ids, everything))} entries back in line")


@app.command("drop")
def drop(
    ids: Ids = None,
    everything: All = False,
    kind: Annotated[str | None, typer.Option(help="Only findings, or only picture.")] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Give entries up: they will never leave. The findings themselves stay in the database."""
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"--kind must be one of {', '.join(KINDS)}, got {kind!r}")
    with Outbox(resolve(config, data_dir).database) as outbox:
        print(f"{outbox.drop(_chosen(ids, everything), kind)} entries given up")


def _chosen(ids: list[int] | None, everything: bool) -> list[int] | None:
    if bool(ids) == everything:
        raise ConfigError("say which: ids as `derma outbox ls` shows them, or --all")
    return ids or None


@app.command("drain")
def drain(config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Send what waits now, with no exam running, and fetch the second opinions that have come."""
    settings = resolve(config, data_dir)
    access_of(settings.cloud)
    child = subprocess.run(
        [sys.executable, "-m", "derma_forwarder.drain"], input=json.dumps(asdict(settings)), text=True, check=False
    )
    if child.returncode and error_of(child.returncode) is None:
        raise ResourceError(f"the forwarder ended with status {child.returncode}")
    if child.returncode:  # it has said why
        sys.exit(child.returncode)


@app.command("claim")
def claim(config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Make the site's name this machine's, after its data folder moved or the machine was replaced."""
    settings = resolve(config, data_dir)
    line = Line(access_of(settings.cloud))
    try:
        line.take_site(settings.cloud.site, identity_of(settings.data_dir))
    except LineDown as error:
        raise ResourceError(f"the line to {settings.cloud.redis} is down: {error}") from error
    finally:
        line.close()
    print(f"{settings.cloud.site} is this machine's")
