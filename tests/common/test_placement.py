"""Cores, niceness and real-time priority hold for every thread, and a right that is missing is told with its remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from derma_common.errors import ConfigError, ResourceError, error_of
from derma_common.placement import place, refusal
from derma_common.settings import DetectorSettings

# threads that are there before, as those of libraries, and one that is started after
PROGRAM = """
import os, sys, threading, time
from derma_common.errors import UserError
from derma_common.placement import place
from derma_common.settings import DetectorSettings
for _ in range(3):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
if {drop}:
    import resource
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0)); resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    os.setresuid(65534, 65534, 65534)
try:
    place("detector", DetectorSettings(cores={cores}, priority={priority}, realtime={realtime}))
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
for thread in map(int, os.listdir("/proc/self/task")):
    print(sorted(os.sched_getaffinity(thread)), os.getpriority(os.PRIO_PROCESS, thread), os.sched_getscheduler(thread),
          os.sched_getparam(thread).sched_priority)
"""
ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="needs the right to raise priorities, as root has it")


def placed(cores=(), priority=0, realtime=0, drop=False):
    """Place a process of its own; return its exit status and what it printed."""
    program = PROGRAM.format(cores=cores, priority=priority, realtime=realtime, drop=drop)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_every_thread_runs_on_the_cores_and_with_the_niceness():
    core = max(os.sched_getaffinity(0))
    status, threads = placed(cores=(core,), priority=7)
    assert status == 0 and threads == [f"[{core}] 7 {os.SCHED_OTHER} 0"] * 5


@as_root
def test_every_thread_runs_in_real_time_where_that_is_permitted():
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("this container gives no real-time priority, not even to root")
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    status, threads = placed(realtime=10)
    assert status == 0 and {line.partition("] ")[2] for line in threads} == {
        f"{os.getpriority(os.PRIO_PROCESS, 0)} {os.SCHED_FIFO} 10"
    }


@pytest.mark.parametrize(
    ("wanted", "says"),
    [({"priority": -5}, r"detector.priority = -5 is not permitted .*'<user> - nice -5' to .*--ulimit nice=25\)"),
     ({"realtime": 10}, r"detector.realtime = 10 is not permitted .*'<user> - rtprio 10' to .*--ulimit rtprio=10\)")],
)  # fmt: skip
@as_root
def test_without_the_right_the_process_ends_with_the_remedy(wanted, says):
    status, said = placed(drop=True, **wanted)
    assert error_of(status) is ResourceError and re.match(says, said[0])


def test_a_core_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"detector.cores: there is no core \[4095\] for this process"):
        place("detector", DetectorSettings(cores=(0, 4095)))


def test_asking_changes_nothing_here():
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    assert refusal("detector", DetectorSettings(cores=(core,), priority=19)) is None
    assert isinstance(refusal("detector", DetectorSettings(cores=(4095,))), ConfigError)
    assert (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)) == before
