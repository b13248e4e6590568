"""What a run's services are told at their start: the plan that the supervisor writes into the run directory."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from derma_common.config import settings_from
from derma_common.errors import ConfigError
from derma_common.settings import Settings


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a service is told at its start: the settings, the run and its directories."""

    run_id: str
    run_dir: str  # rings, sockets, heartbeats
    settings: Settings
    detector_dir: str
    classifier_dir: str


PLAN_FILE = "plan.json"


def write_plan(plan: RunPlan) -> None:
    """Write the plan into its run directory, readable by this user alone."""
    path = Path(plan.run_dir) / PLAN_FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(asdict(plan), stream)


def read_plan(run_dir: Path) -> RunPlan:
    """Read the plan of a run directory. Raises ConfigError."""
    try:
        raw = json.loads((run_dir / PLAN_FILE).read_text(encoding="utf-8"))
        table = dict(raw.pop("settings"))
        return RunPlan(settings=settings_from(table, "the run's plan"), **raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{run_dir} holds no run plan: {error}") from error
