"""Checkpoints that survive: written beside the last one and put in its place only when they are whole.

A full disk or a kill at any moment leaves the last good checkpoint as it was.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  # what torch.load raises; nothing is unpickled here
from typing import Any

import torch

from derma_common.errors import ModelError, ResourceError

FORMAT = 1


def save(state: dict[str, Any], file: Path) -> None:
    """Write `state` (tensors, numbers, texts, lists, dicts) to `file` atomically.

    Raises ResourceError when the disk does not take it; `file` is then what it was before.
    """
    # through memory: the archive writer turns a full disk into an error of its own that says nothing of the disk
    whole = io.BytesIO()
    torch.save({"format": FORMAT, **state}, whole)
    write_atomically(file, whole.getbuffer())


def write_atomically(file: Path, content: bytes | memoryview) -> None:
    """Write a whole file or nothing. Raises ResourceError; what was there before is then still there."""
    draft = file.with_name(file.name + ".part")
    try:
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        kept = "the last good one is kept" if file.exists() else "there is none yet"
        raise ResourceError(
            f"{file} cannot be written: {error.strerror}; {kept}: make room and run the same command again"
        ) from error


def load(file: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed. Raises ModelError when it is damaged or none of derma's."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        first_line = str(error).strip().partition("\n")[0][:120]
        raise ModelError(f"{file} is no checkpoint or is damaged ({first_line}); remove it to start anew") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ModelError(f"{file} is no checkpoint of this version of derma; remove it to start anew")
    return state
