"""What the tests of the training side share."""

from __future__ import annotations

import importlib
import sys

import pytest

_kept = []  # the schemas live as long as the library object


def _complete_torchvision() -> None:
    """Declare torchvision's compiled operators where its CPU wheel cannot load them: timm imports it, we need none."""
    try:
        import torch
    except ImportError:
        return
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)


def pytest_configure(config: pytest.Config) -> None:
    _complete_torchvision()
