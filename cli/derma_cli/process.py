"""One supervised process: start it, read its heartbeat, stop it, know why it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from derma_common.heartbeat import Beat, heartbeat_path, read_beat, words_path
from derma_common.logs import message_of
from derma_common.topology import ROLES, service_of


class Process:
    """An instance of a service over all its incarnations."""

    def __init__(
        self, instance: str, run_dir: Path, log_file: Path, alive_fd: int, environment: Mapping[str, str]
    ) -> None:
        """`alive_fd` reads a pipe whose write end only the supervisor holds; `environment` comes on top of ours."""
        self.instance, self.service = instance, service_of(instance)
        self._run_dir, self._log_file, self._alive_fd = run_dir, log_file, alive_fd
        self._environment = os.environ | dict(environment)
        self._child: subprocess.Popen[bytes] | None = None
        self.incarnation = -1
        self.fruitless = 0  # starts in a row that died before doing useful work
        self.start_at = 0.0  # monotonic seconds, not before
        self.started = 0.0
        self.leaving = False  # was asked to leave
        self.last_beat: Beat | None = None

    def start(self) -> None:
        """Spawn the next incarnation, its output appended to the log file."""
        self.incarnation += 1
        self.leaving = False
        self.last_beat = None
        if self.incarnation == 0:  # what a worker of this name left before it was scaled away
            heartbeat_path(self._run_dir, self.instance).unlink(missing_ok=True)
        words_path(self._run_dir, self.instance).unlink(missing_ok=True)
        self.started = time.monotonic()
        command = [
            sys.executable, "-m", ROLES[self.service].module, "--run-dir", str(self._run_dir), "--instance",
            self.instance, "--incarnation", str(self.incarnation), "--alive-fd", str(self._alive_fd),
        ]  # fmt: skip
        with self._log_file.open("ab") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(self._alive_fd,), process_group=0,
                env=self._environment,
            )  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether the current incarnation lives."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """The current incarnation's pid, 0 when there is none."""
        return self._child.pid if self._child is not None else 0

    def ended(self) -> int | None:
        """Return the exit status once after the end of an incarnation (negative: the signal), else None."""
        if self._child is None or self._child.poll() is None:
            return None
        status = self._child.returncode
        self.beat()
        self._child = None
        return status

    def beat(self) -> Beat | None:
        """Return the current incarnation's last beat, None before its first."""
        beat = read_beat(self._run_dir, self.instance)
        if beat is not None and beat.incarnation == self.incarnation:
            self.last_beat = beat
        return self.last_beat

    @property
    def ready(self) -> bool:
        """Whether it is at work."""
        return self.running and self.last_beat is not None and self.last_beat.state == "ready"

    def silent_s(self, now: float) -> float:
        """Return the seconds since its last beat, or since its start."""
        beat = self.last_beat
        return now - (beat.beat_ns / 1e9 if beat is not None else self.started)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the current incarnation, if it lives."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it at once; works on a stopped process too."""
        self.signal(signal.SIGKILL)

    def leave(self) -> None:
        """Ask it politely to finish and leave."""
        self.leaving = True
        self.signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False when it still lives after `timeout_s`."""
        if self._child is None:
            return True
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_words(self) -> str:
        """Return the line that it left with, else the last line that it wrote to its log."""
        try:
            return words_path(self._run_dir, self.instance).read_text(encoding="utf-8")
        except FileNotFoundError:  # it did not leave, it died
            pass
        try:
            with self._log_file.open("rb") as log:
                log.seek(max(0, self._log_file.stat().st_size - 8192))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return message_of(lines[-1]) if lines else ""
