"""What all tests share: hypothesis profiles, short directories, fake models, hubs that close."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from derma_common.heartbeat import Heartbeat
from derma_common.transport import Hub

_SUPPRESSED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("quick", deadline=None, max_examples=60, suppress_health_check=_SUPPRESSED)
settings.register_profile("thorough", deadline=None, max_examples=2000, suppress_health_check=_SUPPRESSED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

MakeModel = Callable[..., Path]
Until = Callable[..., None]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A directory with a path short enough for a UNIX socket, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="dt"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def hub(run_dir: Path) -> Iterator[Hub]:
    hub = Hub(run_dir)
    yield hub
    hub.close()


@pytest.fixture
def other_hub(run_dir: Path) -> Iterator[Hub]:
    """A second process's sockets on the same run directory."""
    hub = Hub(run_dir)
    yield hub
    hub.close()


@pytest.fixture
def heartbeat(run_dir: Path) -> Iterator[Heartbeat]:
    beat = Heartbeat(run_dir, "test.0", 0)
    yield beat
    beat.close()


@pytest.fixture
def until() -> Until:
    """`until(condition, turn)` calls `turn` until `condition` holds, and fails after ten seconds."""

    def wait(condition: Callable[[], bool], turn: Callable[[], object] = lambda: time.sleep(0.001)) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            turn()

    return wait


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Make the directory of a model: `make_model("detector", behaviour, field=value…)` for the FakeRunner.

    A `bytes` behaviour is the network file itself, of whatever `runner` says.
    """

    def make(kind: str, behaviour: dict[str, Any] | bytes, name: str = "", **changes: Any) -> Path:
        directory = tmp_path / (name or f"fake-{kind}")
        directory.mkdir(exist_ok=True)
        data = behaviour if isinstance(behaviour, bytes) else json.dumps(behaviour).encode()
        detects = kind == "detector"
        card = {
            "name": directory.name, "kind": kind, "architecture": "fake", "file": "network",
            "sha256": hashlib.sha256(data).hexdigest(),
            "input": {"name": "image", "width": 64, "height": 64, "max_batch": 1 if detects else 4},
            "outputs": ["boxes", "scores"] if detects else ["logits"],
            "classes": ["lesion"] if detects else ["benign", "melanoma", "unknown"],
            "licence": "none", "runner": "fake",
        }  # fmt: skip
        (directory / "network").write_bytes(data)
        (directory / "card.json").write_text(json.dumps(card | changes))
        return directory

    return make


@pytest.fixture
def detector_dir(make_model: MakeModel) -> Path:
    """A detector that finds the same two lesions in every picture."""
    return make_model("detector", {"boxes": [[8, 8, 24, 24], [30, 28, 50, 44]], "scores": [[0.9], [0.8]]})


@pytest.fixture
def classifier_dir(make_model: MakeModel) -> Path:
    """A classifier that thinks the same of every crop."""
    return make_model("classifier", {"logits": [1.0, 2.0, 0.0]})
