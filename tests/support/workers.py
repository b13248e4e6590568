"""Cloud workers as real processes, on this host or in another network namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class Worker:
    """A `python -m …` child of the test, started again at will."""

    def __init__(self, module: str, arguments: Sequence[str], env: Mapping[str, str], log: Path, prefix: Sequence[str]):
        self._command = [*prefix, sys.executable, "-m", module, *arguments]
        self._env, self._log = os.environ | dict(env), log
        self.start()

    def start(self) -> None:
        """Start it (again)."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._env, stdout=log, stderr=log)

    def kill(self) -> None:
        """Let it crash."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(20)

    def end(self) -> None:
        """Ask it to leave, and see that it does."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)


@contextmanager
def worker(
    module: str, *arguments: str, env: Mapping[str, str], log: Path, prefix: Sequence[str] = ()
) -> Iterator[Worker]:
    """Run a worker for a while."""
    one = Worker(module, arguments, env, log, prefix)
    try:
        yield one
    finally:
        one.end()
