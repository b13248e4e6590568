"""What of NVIDIA can be used is found out in a child process, which may fail or crash in any way."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.stand_in_driver import make_driver

from derma_common.inference import probe as module
from derma_common.inference.probe import Gpu, probe

AGX_GPU = Gpu(0, "Quadro RTX 6000", "7.5", 24 << 30)


@pytest.fixture
def ask(monkeypatch):
    """Probe anew in an environment."""

    def asked(environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        probe.cache_clear()
        return probe()

    yield asked
    probe.cache_clear()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    return make_driver(folder)


def libraries(folder, **sources):
    """Make modules that stand before the installed ones; each source is a module's text."""
    for name, text in sources.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if "__" in name:
            (path.parent / "__init__.py").touch()
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


GOOD_TENSORRT = """
__version__ = "10.3.0"
class Logger:
    INTERNAL_ERROR = 0
    def __init__(self, severity): pass
class Runtime:
    def __init__(self, logger): print("a line that a library says")
"""
GOOD_ONNXRUNTIME = "def get_available_providers(): return ['CUDAExecutionProvider', 'CPUExecutionProvider']"


def test_without_a_driver_there_is_one_line(ask, tmp_path):
    (tmp_path / "libcuda.so.1").write_text("no library")
    report = ask({"LD_LIBRARY_PATH": str(tmp_path)})
    assert report.gpus == ()
    assert report.problems == ("NVIDIA's driver: not installed (there is no libcuda.so.1)",)


def test_everything_that_is_there_is_found(ask, driver, tmp_path):
    here = libraries(tmp_path, tensorrt=GOOD_TENSORRT, pycuda__driver="", onnxruntime=GOOD_ONNXRUNTIME)
    report = ask(driver | here)
    assert report.gpus == (AGX_GPU,)
    assert report.driver == "13.0"
    assert report.binding == "pycuda"
    assert report.tensorrt == "tensorrt 10.3.0"
    assert report.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert report.problems == ()


def test_it_is_asked_once(ask, driver, tmp_path, monkeypatch):
    report = ask(driver | libraries(tmp_path, tensorrt=GOOD_TENSORRT, onnxruntime=GOOD_ONNXRUNTIME))
    monkeypatch.setattr(subprocess, "run", None)
    assert probe() is report


def test_a_driver_without_a_gpu_is_one_line(ask, driver):
    report = ask(driver | {"STAND_IN_GPUS": "0"})
    assert report.problems == ("NVIDIA's driver: it sees no GPU",)


def test_a_gpu_that_does_not_answer_is_told_in_the_drivers_words(ask, driver):
    report = ask(driver | {"STAND_IN_GPUS": "2"})
    assert report.problems == ("NVIDIA's driver: cuDeviceGet answers invalid device ordinal",)


def test_a_driver_that_crashes_takes_nobody_with_it(ask, driver):
    report = ask(driver | {"STAND_IN_CRASHES": "1"})
    assert report.problems == ("NVIDIA's driver crashed (SIGABRT) when it was tried",)


def test_a_library_that_crashes_is_named_and_what_was_found_before_stays(ask, driver, tmp_path):
    segfault = "import ctypes; ctypes.string_at(0)"
    report = ask(driver | libraries(tmp_path, pycuda__driver="", tensorrt=segfault))
    assert report.gpus == (AGX_GPU,)
    assert report.binding == "pycuda"
    assert report.problems == ("TensorRT crashed (SIGSEGV) when it was tried",)


def test_a_library_that_hangs_is_given_up(ask, driver, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 1.5)
    sleeps = "import time; time.sleep(60)"
    report = ask(driver | libraries(tmp_path, pycuda__driver="", tensorrt=sleeps))
    assert report.gpus == (AGX_GPU,)
    assert report.problems == ("TensorRT did not come back when it was tried",)


def test_libraries_that_cannot_be_imported_are_told_in_their_words(ask, driver, tmp_path):
    missing = "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    report = ask(driver | libraries(tmp_path, tensorrt=missing, tensorrt_rtx=missing, onnxruntime=GOOD_ONNXRUNTIME))
    assert report.tensorrt == ""
    assert report.problems[-1].startswith("TensorRT: tensorrt: libnvinfer.so.10: cannot open")


def test_the_child_says_one_json_object_a_line():
    said = subprocess.run([sys.executable, "-m", module.__name__], capture_output=True, text=True, check=True).stdout
    assert said.startswith('{"trying": "NVIDIA\'s driver"}\n')
