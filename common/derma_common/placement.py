"""Where a process runs and how urgently: its cores, its niceness or real-time priority, for all of its threads.

Linux keeps these for each thread, and libraries start threads while they are imported. So every thread that is there is
placed; later ones inherit from the thread that starts them.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from derma_common.errors import ConfigError, ResourceError, UserError

_THREADS = Path("/proc/self/task")


class Placed(Protocol):
    """What a section of the settings says of its processes."""

    @property
    def cores(self) -> tuple[int, ...]: ...

    @property
    def priority(self) -> int: ...

    @property
    def realtime(self) -> int: ...


def place(name: str, wanted: Placed) -> None:
    """Place this process as section `name` says. Raises ConfigError for its cores, ResourceError without the right."""
    for thread in _THREADS.iterdir():
        with suppress(ProcessLookupError):  # one that has just ended
            _place_thread(int(thread.name), name, wanted)


def refusal(name: str, wanted: Placed) -> UserError | None:
    """Return why a process cannot be placed so, None when it can; tried on a thread that ends at once."""
    refused: list[UserError] = []

    def attempt() -> None:
        try:
            _place_thread(threading.get_native_id(), name, wanted)
        except UserError as error:
            refused.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return refused[0] if refused else None


def _place_thread(thread: int, name: str, wanted: Placed) -> None:
    if wanted.cores:
        allowed = os.sched_getaffinity(thread)
        missing = sorted(set(wanted.cores) - allowed)
        if missing:
            raise ConfigError(f"{name}.cores: there is no core {missing} for this process, only {sorted(allowed)}")
        os.sched_setaffinity(thread, wanted.cores)
    try:
        if wanted.priority:
            os.setpriority(os.PRIO_PROCESS, thread, wanted.priority)
    except PermissionError:
        limit = f"nice {wanted.priority}", f"nice={20 - wanted.priority}"
        raise _not_permitted(f"{name}.priority = {wanted.priority}", *limit) from None
    try:
        if wanted.realtime:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(wanted.realtime))
    except PermissionError:
        limit = f"rtprio {wanted.realtime}", f"rtprio={wanted.realtime}"
        raise _not_permitted(f"{name}.realtime = {wanted.realtime}", *limit) from None


def _not_permitted(setting: str, limit: str, docker: str) -> ResourceError:
    return ResourceError(
        f"{setting} is not permitted to this user: add '<user> - {limit}' to /etc/security/limits.conf and "
        f"log in again (in a container: docker run --ulimit {docker}), or set it to 0"
    )
