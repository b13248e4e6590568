"""Run `derma` as a user would, as real processes, and look at what it left behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE_S = 120.0  # for anything that is waited for; a test never sleeps for a guess


def wait_for(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Return the condition's value as soon as it is true."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:.0f} s in vain for {what}")
        time.sleep(0.02)
    return value


@dataclass
class Run:
    """A `derma up` in a child process, with its own data and shared-memory directories."""

    process: subprocess.Popen[str]
    data_dir: Path
    shm_dir: Path

    def derma(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the same data directory."""
        return derma(*arguments, data_dir=self.data_dir, shm_dir=self.shm_dir)

    def services(self) -> dict[str, dict[str, Any]]:
        """Return the rows of `derma ps` by instance; empty when nothing answers yet."""
        done = self.derma("ps", "--json")
        return {row["instance"]: row for row in json.loads(done.stdout)} if done.returncode == 0 else {}

    def wait_ready(self, *instances: str) -> dict[str, dict[str, Any]]:
        """Wait until these instances are at work."""

        def ready() -> dict[str, dict[str, Any]]:
            assert self.process.poll() is None, self.said()
            services = self.services()
            return services if all(services.get(i, {}).get("state") == "ready" for i in instances) else {}

        return wait_for(ready, f"{', '.join(instances)} to be ready")

    def finish(self) -> dict[str, Any]:
        """Wait for the end and return the summary."""
        out, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, self.said()
        return dict(json.loads(out.splitlines()[-1]))

    def said(self) -> str:
        """Return what `derma up` wrote on stderr."""
        return (self.data_dir / "up.err").read_text()

    def stored(self) -> list[tuple[str, int, str, str]]:
        """Return camera, seq, outcome and reason of every row, in order."""
        return query(self.data_dir, "SELECT camera, seq, outcome, reason FROM frames ORDER BY camera, seq")

    def shm_files(self) -> list[Path]:
        """Return what is left in shared memory."""
        return [p for p in self.shm_dir.rglob("*") if p.is_file()]


def query(data_dir: Path, sql: str) -> list[Any]:
    """Ask the database, read-only."""
    db = sqlite3.connect(f"file:{data_dir / 'derma.db'}?mode=ro", uri=True)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def environment(data_dir: Path, shm_dir: Path) -> dict[str, str]:
    """Return the environment that points derma at a test's own directories."""
    return os.environ | {"DERMA_RUN_DATA_DIR": str(data_dir), "DERMA_RUN_SHM_DIR": str(shm_dir)}


def derma(*arguments: str, data_dir: Path, shm_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "derma_cli", *arguments], capture_output=True, text=True, timeout=300,
        env=environment(data_dir, shm_dir), check=False,
    )  # fmt: skip


@contextmanager
def up(*arguments: str, data_dir: Path, shm_dir: Path, prefix: Sequence[str] = ()) -> Iterator[Run]:
    """Start `derma up --json`, behind `prefix`, and make sure that it is gone afterwards."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "up.err").open("w") as errors:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "derma_cli", "up", "--json", *arguments], stdout=subprocess.PIPE,
            stderr=errors, text=True, env=environment(data_dir, shm_dir),
        )  # fmt: skip
    try:
        yield Run(process, data_dir, shm_dir)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
