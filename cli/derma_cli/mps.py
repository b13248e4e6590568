"""NVIDIA's Multi-Process Service for a run: its daemon, each service's share of the GPU, and a safe order of endings.

A client that is killed while the GPU works for it leaves MPS's server, and with it all other clients, in an undefined
state (NVIDIA's "client early termination"). So a process is taken off the server before it is killed, and the daemon
ends after all of them.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from derma_cli.fleet import leave_with_us
from derma_common.errors import ConfigError, ResourceError
from derma_common.settings import Settings
from derma_common.topology import Service

log = logging.getLogger(__name__)
CONTROL = "nvidia-cuda-mps-control"
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # the 1 of `gpu = 1` is the 1 of nvidia-smi
ANSWER_WITHIN_S = 1.0  # the supervisor waits for it
START_WITHIN_S = 10.0
END_WITHIN_S = 5.0


def usual_pipe_dir() -> Path:
    """Return where a daemon that is not ours listens."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))


def gpu_environment(settings: Settings, service: Service, mps: Mps | None) -> dict[str, str]:
    """Return what a service's environment says of the GPU. Raises ConfigError."""
    if service not in (Service.DETECTOR, Service.CLASSIFIER):
        return {}
    section = settings.detector if service is Service.DETECTOR else settings.classifier
    shares = {}
    if section.gpu_percent < 100:
        shares["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(section.gpu_percent)
    if section.gpu_memory_mb:
        shares["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"{max(0, section.gpu)}={section.gpu_memory_mb}M"
    if shares and mps is None:
        raise ConfigError(f"{service}.gpu_percent and {service}.gpu_memory_mb need gpu.mps = true")
    return ORDER | shares | (mps.environment if mps is not None else {})


def answers(pipe_dir: Path) -> bool:
    """Whether a daemon listens in a directory."""
    return pipe_dir.is_dir() and _ask(pipe_dir, "get_server_list") is not None


class Mps:
    """The daemon that a run's services share: one that is there, or one of our own."""

    def __init__(self, run_dir: Path, log_dir: Path) -> None:
        """Start a daemon with its sockets in `run_dir`, unless one is running. Raises ResourceError."""
        self._own_dir, self._log_dir = run_dir / "mps", log_dir / "mps"
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe_dir = usual_pipe_dir()
        if shutil.which(CONTROL) is None:
            raise ResourceError(
                f"gpu.mps needs {CONTROL}, which comes with NVIDIA's driver (in a container: the driver capability "
                "'utility'); install it, or set gpu.mps = false"
            )
        if not answers(self._pipe_dir):
            self._start()

    def _start(self) -> None:
        self._pipe_dir = self._own_dir
        self._own_dir.mkdir(mode=0o700)
        self._log_dir.mkdir(exist_ok=True)
        log_file = self._log_dir / "daemon.log"
        with log_file.open("wb") as said:
            self._child = subprocess.Popen(
                [CONTROL, "-f"], stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0,
                preexec_fn=leave_with_us,
                env=os.environ | ORDER | self.environment | {"CUDA_MPS_LOG_DIRECTORY": str(self._log_dir)},
            )  # fmt: skip
        deadline = time.monotonic() + START_WITHIN_S
        while not answers(self._pipe_dir):
            if self._child.poll() is not None or time.monotonic() > deadline:
                words = log_file.read_text(errors="replace").strip().rpartition("\n")[2]
                self._end_child()
                raise ResourceError(
                    f"{CONTROL} does not start ({words or 'it says nothing'}); set gpu.mps = false to go without it"
                )
            time.sleep(0.05)

    @property
    def environment(self) -> dict[str, str]:
        """What leads a client to the daemon."""
        return {"CUDA_MPS_PIPE_DIRECTORY": str(self._pipe_dir)}

    def release(self, pid: int) -> None:
        """Take a process off its server, if it is on one, so that it may be killed."""
        for server in (_ask(self._pipe_dir, "get_server_list") or "").split():
            if str(pid) in (_ask(self._pipe_dir, f"get_client_list {server}") or "").split():
                _ask(self._pipe_dir, f"terminate_client {server} {pid}")

    def close(self) -> None:
        """End the daemon if it is ours; call it when no client lives any more."""
        if self._child is not None:
            _ask(self._pipe_dir, "quit", END_WITHIN_S)
            self._end_child()

    def _end_child(self) -> None:
        """Wait for the daemon's end, then ask for it, then force it."""
        if self._child is None:
            return
        for number in (0, signal.SIGTERM, signal.SIGKILL):  # 0 asks nothing
            self._child.send_signal(number)
            try:
                self._child.wait(END_WITHIN_S)
                return
            except subprocess.TimeoutExpired:
                log.warning("%s does not end", CONTROL)


def _ask(pipe_dir: Path, command: str, within_s: float = ANSWER_WITHIN_S) -> str | None:
    """Return the daemon's answer, None where it gives none."""
    try:
        done = subprocess.run(
            [CONTROL], input=command + "\n", capture_output=True, text=True, timeout=within_s, check=False,
            env=os.environ | {"CUDA_MPS_PIPE_DIRECTORY": str(pipe_dir)},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("%s gives no answer to %r: %s", CONTROL, command, error)
        return None
    return done.stdout if done.returncode == 0 else None
