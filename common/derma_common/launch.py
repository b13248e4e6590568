"""Start a service process: arguments, signals, cores, logging, heartbeat, metrics; services contain none of it.

A service's `__main__` gives `launch` a function that builds its host. A UserError ends the process with
one line on stderr and the error's exit code; anything else is a crash that the supervisor sees.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2

from derma_common import logs, stderr
from derma_common.errors import UserError
from derma_common.heartbeat import Heartbeat, words_path
from derma_common.placement import place
from derma_common.plan import RunPlan, read_plan
from derma_common.settings import Settings
from derma_common.stage import Orphaned, StageHost, Stop
from derma_common.telemetry import Metrics
from derma_common.topology import PIPELINE, Service
from derma_common.tracing import Tracer
from derma_common.transport import Hub

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Seat:
    """What the launcher hands to a service."""

    instance: str
    incarnation: int
    index: str  # after the dot of the instance's name
    plan: RunPlan
    run_dir: Path
    hub: Hub
    heartbeat: Heartbeat
    metrics: Metrics
    stop: Stop
    alive_fd: int
    closing: ExitStack
    tracer: Tracer | None = None  # while tracing is on

    @property
    def settings(self) -> Settings:
        """The run's settings."""
        return self.plan.settings


def launch(build: Callable[[Seat], StageHost], argv: list[str] | None = None) -> int:
    """Run one service process and return its exit status."""
    faulthandler.enable()
    arguments = _arguments(argv)
    stop = Stop()
    signal.signal(signal.SIGTERM, stop.ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to pass on
    _die_with_parent(arguments.alive_fd)
    try:
        plan = read_plan(arguments.run_dir)
        service, _, index = arguments.instance.partition(".")
        camera = index if service == Service.CAPTURE else ""
        logs.install(plan.settings, arguments.instance, plan.run_id, sys.stderr, camera)
        _place(plan.settings, Service(service))
        with ExitStack() as closing:
            if stderr.needed(plan.settings, camera):
                closing.enter_context(stderr.logged())
            seat = _seat(arguments, plan, stop, closing)
            host = build(seat)
            seat.heartbeat.state = "ready"
            seat.heartbeat.beat()
            logging.info("%s ready (start %d)", arguments.instance, arguments.incarnation)
            host.run()
    except UserError as error:
        line = logs.say_last(f"{arguments.instance}: {error}")
        with suppress(OSError):  # no room even for that: the exit status says what kind of error it was
            words_path(arguments.run_dir, arguments.instance).write_text(line, encoding="utf-8", errors="replace")
        return error.exit_code
    except Orphaned:
        logs.say_last(f"{arguments.instance}: the supervisor is gone, leaving")
        return 0
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A service of derma; started by `derma up`.")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--incarnation", type=int, default=0)
    parser.add_argument("--alive-fd", type=int, default=-1, help="readable or closed when the supervisor is gone")
    return parser.parse_args(argv)


def _seat(arguments: argparse.Namespace, plan: RunPlan, stop: Stop, closing: ExitStack) -> Seat:
    heartbeat = Heartbeat(arguments.run_dir, arguments.instance, arguments.incarnation)
    closing.callback(heartbeat.close)
    metrics = Metrics(arguments.instance)
    hub = Hub(arguments.run_dir)
    closing.callback(hub.close)
    if plan.settings.metrics.enabled:
        # its thread is a daemon: closing it would only delay the process's end
        heartbeat.metrics_port = metrics.serve(plan.settings.metrics.address).port
    tracer = None
    if plan.settings.tracing.enabled:
        tracer = Tracer(plan.settings, plan.run_id, arguments.instance)
        closing.callback(tracer.close)
    index = arguments.instance.split(".", 1)[1]
    return Seat(
        arguments.instance, arguments.incarnation, index, plan, arguments.run_dir, hub, heartbeat, metrics, stop,
        arguments.alive_fd, closing, tracer,
    )  # fmt: skip


def _die_with_parent(alive_fd: int) -> None:
    """Let the kernel kill this process with its supervisor, even when the loop hangs; the pipe covers the rest."""
    if alive_fd < 0 or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _place(settings: Settings, service: Service) -> None:
    """Put the process where its section of the settings says; OpenCV's threads are not to be in the networks' way."""
    name = service.value if service in PIPELINE else "cloud"
    place(name, getattr(settings, name))
    cv2.setNumThreads(settings.capture.threads)
