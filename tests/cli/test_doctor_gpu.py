"""`derma doctor` on GPU, runners, MPS, cores and priorities: nothing changed, every remark with its remedy."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from support.mps_daemon import install

from derma_cli import machine
from derma_common.inference.probe import Gpu, Report, probe
from derma_common.settings import GpuSettings, Settings

CORE = min(os.sched_getaffinity(0))


def settings(name="detector", **wanted):
    return replace(Settings(), **{name: replace(getattr(Settings(), name), **wanted)})


def test_without_wishes_there_is_nothing_to_remark():
    (found,) = machine.placement(Settings())
    assert found.state == "good" and "all cores" in found.says


@pytest.mark.parametrize("name", ["capture", "detector", "classifier", "sink", "cloud"])
def test_what_is_permitted_is_good_and_what_is_not_there_is_bad(name):
    (good,) = machine.placement(settings(name, cores=(CORE,), priority=5))
    (bad,) = machine.placement(settings(name, cores=(4095,)))
    assert good.state == "good" and f"cores [{CORE}], nice 5" in good.says
    assert bad.state == "bad" and f"{name}.cores: there is no core [4095]" in bad.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to real-time priority, as root has it")
def test_a_real_time_process_wants_cores_of_its_own():
    (shared,) = machine.placement(settings(realtime=5, cores=(CORE,)))
    if shared.state == "bad":
        pytest.skip("this container gives no real-time priority, not even to root")
    assert shared.state == "note" and "cores that no other section names" in shared.remedy
    others = {name: replace(getattr(Settings(), name), cores=(CORE + 1,)) for name in machine.PLACED}
    alone = replace(Settings(), **others | {"detector": replace(Settings().detector, realtime=5, cores=(CORE,))})
    assert next(c for c in machine.placement(alone) if c.says.startswith("detector")).state == "good"


def test_mps_is_looked_for_only_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    asking = replace(Settings(), gpu=GpuSettings(mps=True))
    assert machine.mps(Settings()).state == "good"
    assert machine.mps(asking).state == "bad" and "driver" in machine.mps(asking).remedy
    install(tmp_path)
    assert machine.mps(asking).state == "good" and "a run starts its daemon" in machine.mps(asking).says


CARD = Gpu(0, "Quadro RTX 6000", "7.5", 24 * 10**9)
WELL = Report("12.2 (535.129)", (CARD,), "tensorrt 10.7.0", "pycuda", ("CPUExecutionProvider",))


@pytest.fixture
def machine_of(monkeypatch):
    return lambda report: monkeypatch.setattr(machine, "probe", lambda: report)


@pytest.mark.skipif(bool(probe().gpus), reason="for machines without a GPU")
def test_without_a_gpu_networks_run_on_the_cpu_and_a_runner_that_was_named_is_bad():
    assert machine.gpu().state == "good" and "networks run on the CPU" in machine.gpu().says
    detector, classifier = machine.runners(settings(runner="tensorrt"))
    assert detector.state == "bad" and 'set detector.runner = "auto"' in detector.remedy
    assert (classifier.state, classifier.says) == ("good", "classifier: onnx (auto)")


def test_a_gpu_with_its_libraries_is_told_with_what_runs_on_it(machine_of):
    machine_of(WELL)
    assert machine.gpu().state == "good"
    assert "0: Quadro RTX 6000, SM 7.5, 24 GB; CUDA 12.2 (535.129); tensorrt 10.7.0" in machine.gpu().says
    assert [c.says for c in machine.runners(Settings())] == [
        "detector: tensorrt on GPU 0 (auto)", "classifier: tensorrt on GPU 0 (auto)",
    ]  # fmt: skip


def test_a_gpu_that_nothing_can_use_is_a_remark_with_the_reason(machine_of):
    machine_of(replace(WELL, tensorrt="tensorrt 8.6.1", problems=("TensorRT: it is old",)))
    assert machine.gpu().state == "note" and "it is old" in machine.gpu().says
    for check in machine.runners(Settings()):
        assert check.state == "note" and "older than 10" in check.says and check.remedy
