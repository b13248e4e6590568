"""What `derma doctor` asks the machine itself: one small function for each thing, all of them reading only."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from derma_cli.mps import CONTROL, answers, usual_pipe_dir
from derma_common.config import PLACED
from derma_common.errors import ResourceError
from derma_common.inference.choice import AUTO, choice_of, resolve
from derma_common.inference.probe import probe
from derma_common.placement import refusal
from derma_common.settings import Settings

State = Literal["good", "note", "bad"]
GB = 1e9
LEAST_MEMORY = 1.0 * GB  # three processes with a network each, and the pictures
LEAST_FILES = 256
TOGETHER = "see docs/gpu.md for which driver, libraries and TensorRT belong together"
TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronised


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; a remedy where it is not good."""

    name: str
    state: State
    says: str
    remedy: str = ""


def python() -> Check:
    """The interpreter."""
    return Check("python", "good", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def cpu(settings: Settings, info: Path = Path("/proc/cpuinfo")) -> Check:
    """Cores, vector instructions, and what the settings make of them."""
    cores = len(os.sched_getaffinity(0))
    flags = set(info.read_text().split()) if info.exists() else set()
    known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimd", "asimddp")
    has = [flag for flag in known if flag in flags]
    d, c = settings.detector, settings.classifier
    says = (
        f"{cores} core{'s' if cores > 1 else ''}, {', '.join(has) or 'no vector instructions that matter'}; detector "
        f"{d.workers} x {d.threads} threads, classifier {c.workers} x {c.threads}"
    )
    if not {"avx2", "asimd"} & set(has):
        return Check("cpu", "note", says, "expect few frames/s: inference without AVX2 takes several times as long")
    if cores < 2:
        return Check(
            "cpu", "note", says, "detector and classifier share one core; two or more are wanted for live video"
        )
    return Check("cpu", "good", says)


def memory(info: Path = Path("/proc/meminfo")) -> Check:
    """Memory that is free for use."""
    rows = dict(line.split(":", 1) for line in info.read_text().splitlines()) if info.exists() else {}
    if "MemAvailable" not in rows:
        return Check("memory", "note", "this system does not say how much is free")
    free = int(rows["MemAvailable"].split()[0]) * 1024
    says = f"{free / GB:.1f} GB available"
    if free < LEAST_MEMORY:
        return Check("memory", "bad", says, f"at least {LEAST_MEMORY / GB:.0f} GB are needed: close other programs")
    return Check("memory", "good", says)


def gpu() -> Check:
    """GPUs and what there is to use them with."""
    report = probe()
    if not report.gpus:
        return Check("gpu", "good", f"none can be used ({'; '.join(report.problems)}); networks run on the CPU")
    each = ", ".join(f"{g.index}: {g.name}, SM {g.sm}, {g.memory_bytes / GB:.0f} GB" for g in report.gpus)
    libraries = " · ".join(part for part in (report.tensorrt, report.binding, *report.providers) if part)
    says = f"{each}; CUDA {report.driver}; {libraries}"
    if report.problems:
        return Check("gpu", "note", f"{says}; {'; '.join(report.problems)}", TOGETHER)
    return Check("gpu", "good", says)


def runners(settings: Settings) -> Iterator[Check]:
    """What each network would be run by, and why it is that."""
    for name, section in (("detector", settings.detector), ("classifier", settings.classifier)):
        choice = choice_of(section, settings.run)
        try:
            chosen, line = resolve(choice, probe())
        except ResourceError as error:
            yield Check("runner", "bad", f"{name}: {error}", f'mend that, or set {name}.runner = "auto"')
            continue
        where = f" on GPU {chosen.gpu}" if chosen.gpu >= 0 else ""
        says = f"{name}: {chosen.runner}{where}{' (auto)' if choice.runner == AUTO else ''}"
        if line:
            yield Check("runner", "note", f"{says}; {line}", TOGETHER)
        else:
            yield Check("runner", "good", says)


def mps(settings: Settings) -> Check:
    """NVIDIA's Multi-Process Service, where the settings ask for it."""
    running = answers(usual_pipe_dir())
    if not settings.gpu.mps:
        return Check("mps", "good", f"not asked for{'; a daemon is running' if running else ''}")
    if shutil.which(CONTROL) is None:
        return Check(
            "mps", "bad", f"gpu.mps is set and there is no {CONTROL}", "install the driver's compute utilities"
        )
    shares = ", ".join(f"{name} {getattr(settings, name).gpu_percent} %" for name in ("detector", "classifier"))
    return Check("mps", "good", f"{'its daemon is running' if running else 'a run starts its daemon'}; {shares}")


def placement(settings: Settings) -> Iterator[Check]:
    """Cores, niceness and real-time priority, tried out."""
    sections = {name: getattr(settings, name) for name in PLACED}
    asked = {name: s for name, s in sections.items() if s.cores or s.priority or s.realtime}
    if not asked:
        yield Check("placement", "good", "processes may use all cores, at the usual priority")
    for name, section in asked.items():
        cores = f"cores {list(section.cores)}" if section.cores else "all cores"
        says = f"{name}: {cores}, nice {section.priority}, real-time priority {section.realtime}"
        refused = refusal(name, section)
        others = {core for other in PLACED if other != name for core in sections[other].cores or section.cores}
        if refused is not None:
            yield Check("placement", "bad", says, str(refused))
        elif section.realtime and (not section.cores or others & set(section.cores)):
            remedy = f"give {name}.cores cores that no other section names, or it can keep the others from running"
            yield Check("placement", "note", says, remedy)
        else:
            yield Check("placement", "good", says)


def cameras(folder: Path = Path("/dev")) -> Iterator[Check]:
    """Webcams and whether this user may use them."""
    devices = sorted(folder.glob("video*"))
    if not devices:
        yield Check("webcams", "good", "none; recordings and network cameras need none")
    for device in devices:
        if os.access(device, os.R_OK | os.W_OK):
            yield Check("webcam", "good", f"{device} may be used")
        else:
            remedy = "add yourself to its group (sudo usermod -aG video $USER) and log in again"
            yield Check("webcam", "bad", f"{device} may not be used by this user", remedy)


def clock() -> Check:
    """Whether the wall clock, which findings are dated by, is kept right. Durations use the monotonic clock."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex"):
        return Check("clock", "note", "this system does not say whether it is synchronised")
    state = libc.adjtimex(ctypes.create_string_buffer(512))  # struct timex, modes 0: asks only
    if state < 0:
        return Check("clock", "note", f"adjtimex: {errno.errorcode.get(ctypes.get_errno(), 'unknown')}")
    if state == TIME_ERROR:
        remedy = "timedatectl set-ntp true; until then times of findings may be wrong (durations are not)"
        return Check("clock", "note", "the wall clock is not synchronised", remedy)
    return Check("clock", "good", "the wall clock is synchronised")


def open_files() -> Check:
    """How many files and sockets a process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        return Check("open files", "bad", f"at most {soft} for a process", f"ulimit -n {4 * LEAST_FILES}")
    return Check("open files", "good", f"at most {soft} for a process")


def disk_type(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the type of the file system that holds a path, "" where that is not known."""
    if not mounts.exists():
        return ""
    rows = [line.split() for line in mounts.read_text().splitlines()]
    places = {row[1].replace("\\040", " "): row[2] for row in rows}
    resolved = path.resolve()
    return next((places[str(p)] for p in (resolved, *resolved.parents) if str(p) in places), "")
