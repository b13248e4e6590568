"""Checkpoints: weights plus a readable JSON beside them, replaced atomically, read with weights_only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  # what torch.load raises; nothing is unpickled here
from typing import Any, Protocol

import torch

from derma_common.errors import ModelError

WEIGHTS_FILE = "checkpoint.pt"
RECIPE_FILE = "checkpoint.json"


class Resumable(Protocol):
    """What a checkpoint saves and restores."""

    model: Any
    average: Any
    optimizer: Any
    epoch: int
    step: int
    elapsed_s: float
    warm_started: bool


def save_checkpoint(run: Resumable, directory: Path, recipe: dict[str, Any]) -> None:
    """Write the run's state to `directory`; a kill at any moment leaves the old or the new checkpoint whole."""
    counters: dict[str, Any] = {
        "epoch": run.epoch,
        "step": run.step,
        "elapsed_s": run.elapsed_s,
        "warm_started": run.warm_started,
    }
    state = {name: getattr(run, name).state_dict() for name in ("model", "average", "optimizer")}
    draft = directory / (WEIGHTS_FILE + ".part")
    with draft.open("wb") as stream:
        torch.save({**state, **counters, "recipe": recipe}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(directory / WEIGHTS_FILE)
    note = directory / (RECIPE_FILE + ".part")
    note.write_text(json.dumps({**counters, "recipe": recipe}, indent=1) + "\n", encoding="utf-8")
    note.replace(directory / RECIPE_FILE)


def load_checkpoint(run: Resumable, directory: Path) -> bool:
    """Restore the run from `directory`; False when there is no checkpoint. Raises ModelError when it is damaged."""
    if not (directory / WEIGHTS_FILE).exists():
        return False
    state = read_checkpoint(directory)
    try:
        for name in ("model", "average", "optimizer"):
            getattr(run, name).load_state_dict(state[name])
        run.epoch, run.step = int(state["epoch"]), int(state["step"])
        run.elapsed_s, run.warm_started = float(state["elapsed_s"]), bool(state["warm_started"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{directory / WEIGHTS_FILE} does not fit this recipe: {reason}") from error
    return True


def read_checkpoint(directory: Path) -> dict[str, Any]:
    """Read the raw state of a checkpoint. Raises ModelError."""
    path = directory / WEIGHTS_FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise ModelError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    return state
