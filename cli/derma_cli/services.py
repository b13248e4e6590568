"""`derma down · ps · scale`: talk to the supervisor of the run of this data directory."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from derma_cli.options import AsJson, ConfigFile, DataDir, resolve
from derma_cli.rundir import is_alive, remove_dead, run_dir_of
from derma_common.errors import ConfigError, ResourceError, RunError
from derma_common.messages import Command, Reply
from derma_common.settings import Settings
from derma_common.topology import CONTROL
from derma_common.transport import request

DOWN_WITHIN_S = 60.0


def ask(settings: Settings, command: Command) -> Reply:
    """Ask the running supervisor. Raises ResourceError when no run is up and RunError when it refuses."""
    run_dir = run_dir_of(settings)
    if not is_alive(run_dir):
        raise ResourceError(f"no run is up for {settings.data_dir}; start one with `derma up SOURCE`")
    reply = request(run_dir, CONTROL, command)
    if reply is None:
        raise RunError("the supervisor does not answer; see `derma logs`, or end it and run `derma down`")
    if reply.error:
        raise ConfigError(reply.error)
    return reply


def down(config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """End the run: what is in flight is finished and stored first. Also cleans up after a killed one."""
    settings = resolve(config, data_dir)
    run_dir = run_dir_of(settings)
    if remove_dead(run_dir):
        print("the run was dead; its shared memory is removed", file=sys.stderr)
        return
    if not is_alive(run_dir):
        print(f"no run is up for {settings.data_dir}", file=sys.stderr)
        return
    ask(settings, Command("down"))
    print("finishing what is in flight", file=sys.stderr)
    deadline = time.monotonic() + DOWN_WITHIN_S
    while is_alive(run_dir):
        if time.monotonic() > deadline:
            raise RunError(f"the run is still up after {DOWN_WITHIN_S:.0f} s")
        time.sleep(0.1)
    print("the run has ended; see `derma findings`, `derma top --once`", file=sys.stderr)


def ps(as_json: AsJson = False, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Show the processes of the run."""
    reply = ask(resolve(config, data_dir), Command("ps"))
    if as_json:
        print(json.dumps([asdict(s) for s in reply.services]))
        return
    print(
        f"{'instance':<20}{'state':<10}{'pid':>8}{'restarts':>10}{'uptime s':>10}{'beat s':>8}"
        f"{'handled':>9}{'metrics':>9}"
    )
    for s in reply.services:
        print(
            f"{s.instance:<20}{s.state:<10}{s.pid:>8}{s.restarts:>10}{s.uptime_s:>10.1f}{s.beat_age_s:>8.2f}"
            f"{s.handled:>9}{s.metrics_port:>9}"
        )


def scale(
    assignment: Annotated[str, typer.Argument(metavar="SERVICE=N", help="Such as classifier=3.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Change the number of workers of a service while frames flow."""
    print(ask(resolve(config, data_dir), Command("scale", assignment)).text)
