"""Let timm be imported where torchvision's compiled operators cannot be loaded.

timm imports torchvision, of which derma needs nothing. On machines whose index pairs a torch wheel with a torchvision
built for another one, that import fails on a missing operator; declaring its schema is enough.
"""

from __future__ import annotations

import importlib
import sys

import torch

_OPERATORS = ("nms", "qnms")
_kept: list[object] = []  # schemas live as long as their library object


def complete_torchvision() -> None:
    """Declare torchvision's operators if it cannot load its own; call before timm is imported first."""
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in _OPERATORS:
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
