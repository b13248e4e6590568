"""Real Redis servers: one without users for behaviour, one with TLS and users for who may do what."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.redis_server import MISSING, Authority, RedisServer, available

from derma_common.cloud.streams import Line


def _directory() -> Path:
    if not available():
        pytest.skip(MISSING)
    return Path(tempfile.mkdtemp(prefix="dr"))  # short enough for a UNIX socket


@pytest.fixture(scope="module")
def _plain_server() -> Iterator[RedisServer]:
    directory = _directory()
    server = RedisServer(directory)
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def server(_plain_server: RedisServer) -> RedisServer:
    """A running server without users, empty."""
    with _plain_server.client() as client:
        client.flushall()
    return _plain_server


@pytest.fixture
def bare(server: RedisServer) -> Iterator[redis.Redis]:
    """A client that may do everything."""
    with server.client() as client:
        yield client


@pytest.fixture
def line(server: RedisServer) -> Iterator[Line]:
    line = Line(server.access())
    yield line
    line.close()


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A server as `deploy/redis` describes it: TLS, client certificates, users."""
    directory = _directory()
    server = RedisServer(directory / "redis", Authority(directory / "ca"))
    yield server
    server.stop()
    shutil.rmtree(directory)
