"""A `derma up` for the benchmarks: its own directories, fake models, and a look at its services and its rows."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from derma_cli.rundir import is_alive, run_dir_of
from derma_common.config import load_settings
from derma_common.inference.fake import fake_classifier, fake_detector
from derma_common.messages import Command, ServiceState
from derma_common.settings import Settings
from derma_common.topology import CONTROL
from derma_common.transport import request

T = TypeVar("T")
PATIENCE_S = 120.0
POLL_S = 0.02


def wait_for(condition: Callable[[], T], what: str) -> T:
    """Return the condition's value as soon as it is true. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s in vain for {what}")
        time.sleep(POLL_S)
    return value


def fake_models(directory: Path, detector_ms: float, classifier_ms: float) -> tuple[str, ...]:
    """Make a detector that finds two lesions in every picture and its classifier; return the flags of `derma up`."""
    detector = fake_detector(directory / "detector", service_ms=detector_ms)
    classifier = fake_classifier(directory / "classifier", service_ms=classifier_ms)
    return ("--detector", str(detector), "--classifier", str(classifier))


class Run:
    """A `derma up --json` in a child process."""

    def __init__(self, process: subprocess.Popen[str], settings: Settings, shm_dir: Path, errors: Path) -> None:
        self.process, self.settings = process, settings
        self._shm_dir, self._errors = shm_dir, errors
        self.run_dir = run_dir_of(settings)

    def services(self) -> dict[str, ServiceState]:
        """Return what `derma ps` shows, by instance; empty when no run is up."""
        self._check_ended(self.process.poll())
        reply = request(self.run_dir, CONTROL, Command("ps"), 2.0) if is_alive(self.run_dir) else None
        return {s.instance: s for s in reply.services} if reply else {}

    def all_ready(self) -> dict[str, ServiceState]:
        """Return the services when all are at work, else nothing."""
        services = self.services()
        return services if services and all(s.state == "ready" for s in services.values()) else {}

    def finish(self, ask: bool) -> dict[str, Any]:
        """Wait for the end, after asking for it where the source has none; return the summary."""
        if ask:
            self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=600)
        if self.process.returncode:
            self._check_ended(self.process.returncode)
        return dict(json.loads(out.splitlines()[-1]))

    def _check_ended(self, status: int | None) -> None:
        if status is not None:
            last = self._errors.read_text(errors="replace").strip().rpartition("\n")[2]
            raise RuntimeError(f"derma up ended with status {status}: {last}")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database, read-only."""
        db = sqlite3.connect(f"file:{self.settings.database}?mode=ro", uri=True)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def shm_files(self) -> list[str]:
        """Return what lies in the run's shared memory."""
        return [str(p.relative_to(self._shm_dir)) for p in self._shm_dir.rglob("*") if p.is_file()]


@contextmanager
def up(directory: Path, *arguments: str) -> Iterator[Run]:
    """Start `derma up` with data in `directory` and rings in a directory of its own; it is gone afterwards."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="derma-bench-") as shm_dir:
        places = {"DERMA_RUN_DATA_DIR": str(directory / "data"), "DERMA_RUN_SHM_DIR": shm_dir}
        errors = directory / "up.err"
        with errors.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "derma_cli", "up", "--json", *arguments], stdout=subprocess.PIPE, text=True,
                stderr=stream, env=os.environ | places,
            )  # fmt: skip
        try:
            yield Run(process, load_settings(None, os.environ | places), Path(shm_dir), errors)
        finally:
            process.kill()
            process.communicate()
