"""What the tests of the training side share."""

from __future__ import annotations

import importlib.util

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let timm be imported by tests that ask for it directly."""
    if importlib.util.find_spec("torch"):
        from derma_training.torchvision_ops import complete_torchvision

        complete_torchvision()
