"""The cache of TensorRT engines. An engine is a program, so only what this user made here, unchanged, is ever loaded.

One folder of the user's own (0700) holds, for each key, a sidecar `<key>.json` that names its engine by sha256, and the
engine `<sha256>.engine` (0600). The key is made of the content of everything that an engine depends on, so a stale
engine is one that nobody asks for. Whatever belongs to another user, may be written by others, is a link, or is
not what its sidecar says is reported and treated as absent.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from derma_common.errors import ResourceError
from derma_common.inference.gate import Verdict

log = logging.getLogger(__name__)
RECIPE = 1  # raised when networks are converted or built in another way
ANY = "any"
_HASH_DIGITS = 64


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine, and the verdict on it, depend on."""

    model: str  # sha256 of the network's file
    preprocessing: str  # of the input: size, mean, std
    precision: str
    max_batch: int
    flavour: str  # "tensorrt-rtx 1.7.1.116"
    sm: str  # compute capability, "7.5"
    gpu: str  # its name; "any": built without one
    driver: str  # "any": built without one
    pictures: str  # what it is judged by and, in int8, was calibrated on
    recipe: int = RECIPE

    @property
    def digest(self) -> str:
        """The name of this key's files."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    @property
    def anywhere(self) -> EngineKey:
        """The key of an engine that was built ahead, for any GPU of this compute capability."""
        return replace(self, gpu=ANY, driver=ANY)


@dataclass(frozen=True)
class Engine:
    """An engine, the verdict on it (None: not judged yet), and its file."""

    data: bytes
    verdict: Verdict | None
    path: Path


class EngineCache:
    """Engines in one folder."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if need be. Raises ResourceError when it cannot be made or is not this user's alone."""
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
        except OSError as error:
            raise ResourceError(f"run.engine_dir: {folder} cannot be made: {error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ResourceError(
                f"run.engine_dir: {folder} must be a folder of this user alone, since engines are programs: "
                f"chmod 700 {folder}, or name another one"
            )

    def find(self, key: EngineKey) -> Engine | None:
        """Return the engine of a key, None when there is none that may be loaded; the log says what was wrong."""
        sidecar = self.folder / f"{key.digest}.json"
        try:
            row = json.loads(_read_own(sidecar))
            digest = str(row["engine"])
            if len(digest) != _HASH_DIGITS or not digest.isalnum():
                raise ValueError("it names no engine")
            if row["key"] != asdict(key):
                raise ValueError("it is another key's")
            path = self.folder / f"{digest}.engine"
            data = _read_own(path)
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError("the engine was changed since it was built")
            verdict = row["verdict"]
            if verdict is not None:
                verdict = Verdict(bool(verdict["passed"]), tuple(verdict["reasons"]), dict(verdict["figures"]))
            return Engine(data, verdict, path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the engine of %s is not loaded but built anew: %s", sidecar, error)
            return None

    def store(self, key: EngineKey, data: bytes, verdict: Verdict | None) -> Engine:
        """Keep an engine and its verdict, in place of what the key had.

        Raises ResourceError when the disk does not take it.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / f"{digest}.engine"
        row = {"engine": digest, "key": asdict(key), "verdict": None if verdict is None else asdict(verdict)}
        try:
            self._write(path, data)
            self._write(self.folder / f"{key.digest}.json", json.dumps(row, indent=1).encode())
            self._forget_unnamed()
        except OSError as error:
            raise ResourceError(f"run.engine_dir: {self.folder} cannot be written: {error.strerror}") from None
        return Engine(data, verdict, path)

    def side_file(self, name: str) -> bytes:
        """Return a builder's notebook (timing cache), empty when there is none that may be read."""
        try:
            return _read_own(self.folder / name)
        except FileNotFoundError:
            return b""
        except (OSError, ValueError) as error:
            log.warning("%s is not used: %s", self.folder / name, error)
            return b""

    def keep_side_file(self, name: str, data: bytes) -> None:
        """Keep a builder's notebook. Raises ResourceError when the disk does not take it."""
        try:
            self._write(self.folder / name, data)
        except OSError as error:
            raise ResourceError(f"run.engine_dir: {self.folder} cannot be written: {error.strerror}") from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time build engines."""
        descriptor = os.open(self.folder / "building.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file of this user alone, whole or not at all."""
        descriptor, draft = tempfile.mkstemp(dir=self.folder, prefix=".part-")  # mkstemp's files are 0600
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, path)
        except OSError:
            Path(draft).unlink(missing_ok=True)
            raise

    def _forget_unnamed(self) -> None:
        """Remove engines that no sidecar names any more."""
        named = set()
        for sidecar in self.folder.glob("*.json"):
            try:
                named.add(str(json.loads(sidecar.read_bytes())["engine"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        for engine in self.folder.glob("*.engine"):
            if engine.stem not in named:
                engine.unlink(missing_ok=True)


def _read_own(path: Path) -> bytes:
    """Read a file that this user alone may write. Raises ValueError when it is another's, FileNotFoundError if none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path.name} is no file")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ValueError(f"{path.name} is not of this user alone (owner {found.st_uid}, mode {found.st_mode:o})")
        return stream.read()
