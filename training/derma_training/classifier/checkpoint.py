"""Checkpoint files: tensors and plain values, replaced atomically, read with weights_only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  # what torch.load raises; nothing is unpickled here
from typing import Any

import torch

from derma_common.errors import ModelError

CHECKPOINT_FILE = "checkpoint.pt"
BEST_FILE = "best.pt"


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values to a file, atomically and durably."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as stream:
        torch.save(dict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the raw state of a checkpoint. Raises ModelError when it is damaged or none of derma's."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not {"counters", "setup"} <= set(state):
            raise ModelError(f"{path} is no checkpoint of this program")
        return dict(state)
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, UnpicklingError) as error:
        raise ModelError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0][:120]}") from error
