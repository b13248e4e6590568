"""Where networks are trained."""

from __future__ import annotations

import torch

from derma_common.errors import ConfigError


def device_of(wish: str) -> str:
    """Return "cuda" or "cpu". wish: one of them, or "auto". Raises ConfigError when there is no such device."""
    there = torch.cuda.is_available()
    if wish == "cuda" and not there:
        raise ConfigError("--device cuda: PyTorch finds no CUDA device here")
    return wish if wish != "auto" else "cuda" if there else "cpu"
