"""A wall clock for real processes that a test sets while they run: it is laid over the C library's.

Debian's libfaketime does the same for more functions, and breaks Python's time.sleep with it.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *ahead_s;

__attribute__((constructor)) static void begin(void) {
    ahead_s = mmap(0, sizeof *ahead_s, PROT_READ, MAP_SHARED, open(getenv("STEPPED_CLOCK"), O_RDONLY), 0);
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    int failed = syscall(SYS_clock_gettime, clock, t);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) t->tv_sec += *ahead_s;
    return failed;
}

int gettimeofday(struct timeval *t, void *zone) {
    int failed = syscall(SYS_gettimeofday, t, zone);
    if (!failed) t->tv_sec += *ahead_s;
    return failed;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""


class SteppedClock:
    """Sets the wall clock of the processes that are started with its environment; the monotonic clock stays."""

    def __init__(self, folder: Path) -> None:
        """Skip the test where there is no C compiler."""
        if shutil.which("cc") is None:
            pytest.skip("needs a C compiler (apt install gcc libc6-dev)")
        source, library, self._file = folder / "clock.c", folder / "clock.so", folder / "clock"
        source.write_text(_SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        self.set_ahead(0)
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._file)}

    def set_ahead(self, seconds: int) -> None:
        """Let the clock be so far ahead of the true time (negative: behind)."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))
