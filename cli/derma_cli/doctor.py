"""`derma doctor`: whether this machine can run derma, and with which threads it does so best."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from derma_cli.checks import all_checks
from derma_cli.options import DEFAULT_FILE, AsJson, ConfigFile, DataDir, resolve
from derma_cli.toml_edit import by_hand, write_values
from derma_cli.tuning import Tuning
from derma_common.errors import ResourceError


def doctor(
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Measure for a minute, best while idle; write detector variant, threads and cores to derma.toml.",
        ),
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Check this machine and these settings; each thing that is wrong is told with its remedy. Exit 5 if any is."""
    settings = resolve(config, data_dir)
    file = config or DEFAULT_FILE
    checks = list(all_checks(settings, file if file.exists() else None))
    tuned = None
    if not as_json:
        for check in checks:
            print(f"{check.state:<5} {check.name:<14} {check.says}")
            if check.remedy:
                print(f"{'':<20} -> {check.remedy}")
    bad = [check.name for check in checks if check.state == "bad"]
    if tune and not bad:
        cores = sorted(os.sched_getaffinity(0))
        tuned = Tuning(settings, cores, lambda line: print(line, file=sys.stderr, flush=True)).run()
        write_values(file, tuned.settings)
    if as_json:
        print(json.dumps({"checks": [asdict(c) for c in checks], "tuned": tuned and tuned.as_json()}))
    elif tuned is not None:
        print("\n".join(tuned.why))
        print(f"written into {file}: {by_hand(tuned.settings)}")
    if bad:
        raise ResourceError(
            f"{', '.join(bad)}: mend what is marked bad above" + ("; nothing was tuned" if tune else "")
        )
