"""What native libraries write on stderr, as log lines: FFmpeg tells the addresses that it cannot load, passwords too.

Only where that matters: in the capture of a network camera, and in every process when lines must be JSON. Elsewhere
stderr stays as it is, so that not even the last words of a native crash are lost in a pipe. faulthandler always
writes on the real stderr: it says names of functions and files only.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from derma_common.settings import Settings

log = logging.getLogger("native")
_LONGEST_LINE = 4096
PIPE_BYTES = 1 << 20


def needed(settings: Settings, camera: str) -> bool:
    """Say whether native lines of this process must go through the log; `camera` is the one that it opens, if any."""
    network = any(
        c.name == camera and "://" in c.source and not c.source.startswith("synthetic:") for c in settings.camera
    )
    return network or settings.logging.format == "json"


@contextmanager
def logged() -> Iterator[None]:
    """Log every line that reaches file descriptor 2 within the block; the log itself goes to the real one."""
    sys.stderr.flush()
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
    read, write = os.pipe()
    with contextlib.suppress(OSError):  # so that no library waits for us to read, which needs what it may hold: the GIL
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    with os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace") as real:
        before = [handler.setStream(real) for handler in handlers]
        faulthandler.enable(real)
        os.dup2(write, 2)
        os.close(write)
        reader = threading.Thread(target=_log_lines, args=(read,), name="stderr", daemon=True)
        reader.start()
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real.fileno(), 2)  # closes the pipe's last writer, so the reader comes to its end
            reader.join(timeout=1.0)
            faulthandler.enable(sys.stderr)
            for handler, stream in zip(handlers, before, strict=True):
                handler.setStream(stream)


@contextmanager
def muted() -> Iterator[None]:
    """Throw away what native libraries write on file descriptor 2 within the block."""
    sys.stderr.flush()
    real = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(real, 2)
        os.close(real)
        os.close(nowhere)


def _log_lines(descriptor: int) -> None:
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
        while line := stream.readline(_LONGEST_LINE):
            if line.strip():
                log.warning("%s", line.rstrip("\n"))
