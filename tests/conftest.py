"""What all tests share: hypothesis profiles, short directories, fake models, sockets that close."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from derma_common.heartbeat import Heartbeat
from derma_common.inference.fake import fake_classifier, fake_detector
from derma_common.transport import Hub

_SUPPRESSED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("quick", deadline=None, max_examples=40, suppress_health_check=_SUPPRESSED)
settings.register_profile("thorough", deadline=None, max_examples=2000, suppress_health_check=_SUPPRESSED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

Until = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run with more packages leave out what has just passed with fewer: CI has the time for one of them."""
    parser.addoption("--note-passed", metavar="FILE", help="write the names of the tests that passed")
    parser.addoption("--leave-out", metavar="FILE", help="do not run the tests named there")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    file = config.getoption("--leave-out")
    if file:
        passed = set(Path(file).read_text().splitlines())
        left_out = [item for item in items if item.nodeid in passed]
        items[:] = [item for item in items if item.nodeid not in passed]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    file = config.getoption("--note-passed")
    if file:
        passed = [report.nodeid for report in terminalreporter.stats.get("passed", ())]
        Path(file).write_text("\n".join(passed) + "\n")


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
def detector_dir(tmp_path: Path) -> Path:
    """A detector that finds the same two lesions in every picture."""
    return fake_detector(tmp_path / "detector")


@pytest.fixture
def classifier_dir(tmp_path: Path) -> Path:
    """A classifier that thinks the same of every crop."""
    return fake_classifier(tmp_path / "classifier")
