"""MPS: shares in the environment of the children, and a daemon that is used or started and ended."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from support.mps_daemon import RECORD, install

from derma_cli.mps import CONTROL, Mps, answers, gpu_environment
from derma_common.config import load_settings
from derma_common.errors import ConfigError, ResourceError
from derma_common.settings import GpuSettings, Settings
from derma_common.topology import Service


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    """Put the stand-in on PATH; the file that it writes its events into."""
    install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "usual"))
    monkeypatch.setenv(RECORD, str(tmp_path / "record"))
    return tmp_path / "record"


@pytest.fixture
def logs(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


def test_our_own_daemon_lives_as_long_as_it_is_open(daemon, run_dir, logs):
    mps = Mps(run_dir, logs)
    place = run_dir / "mps"
    assert mps.environment == {"CUDA_MPS_PIPE_DIRECTORY": str(place)} and answers(place)
    assert place.stat().st_mode & 0o777 == 0o700
    mps.close()
    assert not answers(place)
    assert daemon.read_text().splitlines() == ["start PCI_BUS_ID", "quit with 0 clients"]


def test_a_daemon_that_is_there_is_used_and_left_alone(daemon, tmp_path, run_dir, logs, monkeypatch):
    first = Mps(run_dir, logs)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", first.environment["CUDA_MPS_PIPE_DIRECTORY"])
    (tmp_path / "other").mkdir()
    second = Mps(tmp_path / "other", logs)
    assert second.environment == first.environment
    second.close()
    assert answers(run_dir / "mps")
    first.close()


def test_only_a_client_is_taken_off_the_server(daemon, run_dir, logs):
    mps = Mps(run_dir, logs)
    client = subprocess.Popen(
        ["sh", "-c", "read line # derma_x"], stdin=subprocess.PIPE, env=os.environ | mps.environment
    )
    stranger = subprocess.Popen(["sh", "-c", "read line # derma_x"], stdin=subprocess.PIPE)
    for process in (client, stranger):
        mps.release(process.pid)
        process.communicate(b"")
    mps.close()
    assert daemon.read_text().splitlines()[1:-1] == [f"terminate {client.pid} alive True"]


def test_our_own_daemon_goes_with_us_even_when_we_are_killed(daemon, run_dir, logs, until):
    program = "import sys, time; from pathlib import Path; from derma_cli.mps import Mps\n"
    program += "mps = Mps(Path(sys.argv[1]), Path(sys.argv[2])); print('up', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", program, str(run_dir), str(logs)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"up\n" and answers(run_dir / "mps")
    child.kill()
    child.communicate()
    until(lambda: not answers(run_dir / "mps"))


def test_without_the_program_the_remedy_is_told(run_dir, logs, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ResourceError, match="comes with NVIDIA's driver"):
        Mps(run_dir, logs)


def test_a_daemon_that_does_not_start_gives_its_last_words(daemon, tmp_path, run_dir, logs):
    (tmp_path / CONTROL).write_text("#!/bin/sh\necho An instance is already running\nexit 1\n")
    with pytest.raises(ResourceError, match=r"does not start \(An instance is already running\); set gpu\.mps = false"):
        Mps(run_dir, logs)


def test_shares_are_in_the_environment_of_the_processes_that_they_are_for(daemon, run_dir, logs):
    flags = {"gpu.mps": True, "detector.gpu_percent": 60, "classifier.gpu": 1, "classifier.gpu_memory_mb": 2048}
    settings = load_settings(None, {}, flags)
    mps = Mps(run_dir, logs)
    try:
        common = mps.environment | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        assert gpu_environment(settings, Service.DETECTOR, mps) == common | {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "60"}
        assert gpu_environment(settings, Service.CLASSIFIER, mps) == common | {
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "1=2048M"
        }
        assert gpu_environment(settings, Service.SINK, mps) == {}
    finally:
        mps.close()


@pytest.mark.parametrize("flag", [{"gpu_percent": 60}, {"gpu_memory_mb": 100}])
def test_a_share_without_mps_is_refused(flag):
    settings = replace(Settings(), detector=replace(Settings().detector, **flag), gpu=GpuSettings(mps=False))
    with pytest.raises(ConfigError, match=r"need gpu\.mps = true"):
        gpu_environment(settings, Service.DETECTOR, None)
