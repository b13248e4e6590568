"""The run directory: sockets, rings and heartbeats of one run, in shared memory, owned by its supervisor.

One data directory has at most one run. Its run directory is derived from it, so `derma ps` finds it; whether a run
is alive is judged by the lock that its supervisor holds, never by a pid.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from derma_common.errors import ResourceError
from derma_common.settings import Settings

LOCK_FILE = "lock"
LEAST_ROOM = 4 << 20  # bytes on the disk of the data folder at the start of a run


def run_dir_of(settings: Settings) -> Path:
    """Return the run directory that belongs to the data directory of `settings`."""
    digest = hashlib.sha256(str(settings.data_dir).encode()).hexdigest()[:10]
    return Path(settings.run.shm_dir) / f"derma-{os.getuid()}" / digest


def make_data_dir(settings: Settings) -> None:
    """Make the data folder and its logs, and try to write there. Raises ResourceError."""
    logs = settings.data_dir / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=logs) as probe:
            os.posix_fallocate(probe.fileno(), 0, LEAST_ROOM)
    except OSError as error:
        raise ResourceError(
            f"cannot write into the data folder {settings.data_dir}: {error.strerror}; choose another with --data-dir"
        ) from error


class RunDir:
    """The locked run directory; leaving the context removes it with all that is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def __enter__(self) -> Self:
        """Lock and empty the directory. Raises ResourceError when a run holds it or it cannot be made."""
        while True:
            try:
                _make_private(self.path.parent)
                _make_private(self.path)
                self._lock = _lock(self.path)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and self.path.parent.is_dir():
                    continue  # a run that was just ending removed it under our hands
                raise ResourceError(
                    f"cannot make the run directory {self.path}: {error.strerror}; set run.shm_dir"
                ) from error
            if self._lock < 0:
                raise already_up(self.path)
            if _is_locked_by(self.path, self._lock):
                _empty(self.path)
                return self
            os.close(self._lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def bytes_left(self) -> int:
        """Return how much shared memory rings and heartbeats still take."""
        return sum(f.stat().st_blocks * 512 for f in self.path.glob("ring-*"))


def already_up(path: Path) -> ResourceError:
    """Return the error of whoever finds a run where it wants to start one."""
    return ResourceError(f"a run is already up here ({path}); see `derma ps`, end it with `derma down`")


def is_alive(path: Path) -> bool:
    """Say whether a supervisor holds this run directory."""
    if not (path / LOCK_FILE).exists():
        return False
    lock = _lock(path)
    if lock < 0:
        return True
    os.close(lock)
    return False


def remove_dead(path: Path) -> bool:
    """Remove the directory of a run whose supervisor is gone; say whether there was one."""
    if not path.is_dir() or is_alive(path):
        return False
    shutil.rmtree(path, ignore_errors=True)
    return True


def _make_private(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True, parents=False)
    stat = path.lstat()
    if stat.st_uid != os.getuid() or stat.st_mode & 0o077 or path.is_symlink():
        raise ResourceError(f"{path} must be a directory of this user alone (0700); remove it or set run.shm_dir")


def _lock(path: Path) -> int:
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    return descriptor


def _is_locked_by(path: Path, lock: int) -> bool:
    """Say whether the locked file is still the directory's lock file, not one that was removed meanwhile."""
    try:
        return os.path.samestat(os.stat(path / LOCK_FILE), os.fstat(lock))
    except FileNotFoundError:
        return False


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name != LOCK_FILE:
            entry.unlink()
