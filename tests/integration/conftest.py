"""Directories of a run of its own for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.place import Place

from derma_common.inference.fake import fake_classifier, fake_detector


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give a data directory, a shared-memory directory and models that take 15 and 8 ms."""
    shm = Path(tempfile.mkdtemp(prefix="derma-test-", dir="/dev/shm"))
    detector = fake_detector(tmp_path / "detector", service_ms=15)
    classifier = fake_classifier(tmp_path / "classifier", service_ms=8)
    yield Place(tmp_path / "data", shm, detector, classifier)
    shutil.rmtree(shm)
