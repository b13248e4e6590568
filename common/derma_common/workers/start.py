"""Start a worker process of the cloud: arguments, settings, signals, logging, metrics and the line to Redis.

A worker's module gives `start` a function that does its work until it is asked to stop. Settings come from where they
always come from: a file, DERMA_ variables. A UserError is one line on stderr and the error's exit status.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2

from derma_common import logs
from derma_common.cloud.access import access_of
from derma_common.cloud.streams import Line
from derma_common.config import load_settings
from derma_common.errors import ConfigError, ResourceError, UserError
from derma_common.settings import Settings
from derma_common.stage import Stop
from derma_common.telemetry import MetricsServer
from derma_common.workers.metrics import WorkerMetrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """What a worker works with."""

    settings: Settings
    arguments: argparse.Namespace
    name: str  # unique for ever: a group's list of workers outlives them
    line: Line
    metrics: WorkerMetrics
    stop: Stop


def start(
    what: str,
    kind: str,
    work: Callable[[Place], None],
    declare: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a worker and return its exit status. `declare` adds its own arguments."""
    faulthandler.enable()
    parser = argparse.ArgumentParser(prog=f"derma serve {what}", description=f"A worker: {what}.")
    parser.add_argument("--config", type=Path, help="settings file; its [cloud] section says where Redis is")
    parser.add_argument("--metrics-port", type=int, default=0, help="0: a free one")
    declare(parser)
    arguments = parser.parse_args(argv)
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.ask)
    name = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(3)}"
    try:
        settings = load_settings(arguments.config, os.environ)
        logs.install(settings, f"{what}.{os.getpid()}", "cloud", sys.stderr)
        cv2.setNumThreads(1)
        if not settings.cloud.redis:
            raise ConfigError("there is no Redis to work for: set cloud.redis, such as rediss://host:6379/0")
        metrics = WorkerMetrics(kind)
        with closing(Line(access_of(settings.cloud))) as line:
            port = _serve(metrics, settings, arguments.metrics_port)
            log.info("%s started, metrics on port %d", name, port)
            work(Place(settings, arguments, name, line, metrics, stop))
    except UserError as error:
        logs.say_last(f"derma: {error}")
        return error.exit_code
    return 0


def positive(text: str) -> float:
    """Return an argument that must be a number above 0; for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def at_least_one(text: str) -> int:
    """Return an argument that must be a whole number above 0; for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _serve(metrics: WorkerMetrics, settings: Settings, port: int) -> int:
    if not settings.metrics.enabled:
        return 0
    try:
        server: MetricsServer = metrics.serve(settings.metrics.address, port)
    except OSError as error:
        raise ResourceError(
            f"metrics cannot be served on {settings.metrics.address}:{port} ({error.strerror})"
        ) from error
    return server.port
