"""`derma models build` and `bench`: what this machine can do is done, what it cannot is named with its remedy."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from support.tiny_onnx import mean_colour_classifier

from derma_cli import models_build
from derma_cli.models_bench import bench, time_calls
from derma_cli.models_build import build
from derma_common.errors import ConfigError, ResourceError
from derma_common.inference.card import InputSpec, ModelCard, read_card, sha256_of, write_card
from derma_common.inference.fake import fake_classifier
from derma_common.inference.opening import open_runner
from derma_common.inference.probe import probe

no_gpu = pytest.mark.skipif(bool(probe().gpus), reason="for machines without a GPU")


@pytest.fixture
def tiny(tmp_path):
    """A real ONNX classifier of a few weights."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(mean_colour_classifier(np.eye(3, dtype=np.float32), 16))
    card = ModelCard(
        name="tiny", kind="classifier", architecture="mean colour", file="model.onnx",
        sha256=sha256_of(directory / "model.onnx"), input=InputSpec("image", 16, 16, max_batch=4), outputs=("logits",),
        classes=("red", "green", "blue"), licence="none",
    )  # fmt: skip
    write_card(card, directory)
    return str(directory)


def test_an_engine_is_built_for_a_gpu_that_is_not_here_and_not_a_second_time(tiny, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx")
    for _ in range(2):
        build([tiny], sm="8.6", precision="fp32", engines=tmp_path / "engines", as_json=True)
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second
    (row,) = first
    assert (row["model"], row["precision"]) == ("tiny", "fp32") and row["judged"].startswith("not yet")
    assert [str(path) for path in (tmp_path / "engines").glob("*.engine")] == [row["engine"]]


@no_gpu
def test_without_a_gpu_the_remedy_is_to_name_one(tiny, tmp_path):
    with pytest.raises(ResourceError, match=r"no engine can be judged here: .*--sm 7\.5"):
        build([tiny], engines=tmp_path / "engines")


def test_a_gpu_that_is_here_and_one_that_is_not_exclude_each_other(tiny):
    with pytest.raises(ConfigError, match="give one of them"):
        build([tiny], gpu=0, sm="7.5")


def test_a_precision_that_there_is_not_is_refused_with_those_that_there_are(tiny):
    with pytest.raises(ConfigError, match="one of fp32, fp16, int8"):
        build([tiny], sm="7.5", precision="fp8")


def test_the_bar_moves_on_a_terminal_and_leaves_nothing(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(models_build.sys, "stderr", screen)
    with models_build._Bar("tiny fp16") as bar:
        bar("building", 1, 2)
    said = screen.getvalue().split("\r\x1b[K")
    assert said == ["", "building tiny fp16", f"building tiny fp16 [{'#' * 12}{'.' * 12}] building", ""]


@no_gpu
def test_every_runner_is_timed_or_named(tiny, capsys):
    bench([tiny], batches=[1, 4], seconds=0.0, as_json=True)
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert [(row["model"], row["runner"], row["batch"]) for row in report["rows"]] == [
        ("tiny", "onnx", 1), ("tiny", "onnx", 4),
    ]  # fmt: skip
    assert set(report["not_measured"]) == {"tensorrt", "onnx-cuda", "onnx-tensorrt"}
    assert all(f"not measured, {name}" in said.err for name in report["not_measured"])


def test_what_is_timed_is_the_call(tmp_path):
    directory = fake_classifier(tmp_path / "slow", service_ms=5)
    _, runner = open_runner(directory, "classifier", 1)
    timed = time_calls(read_card(directory), runner, 2, seconds=0.05)
    assert 5 <= timed.p50_ms <= timed.p99_ms and timed.calls >= 5
    assert timed.pictures_per_s <= 2 / 0.005


@no_gpu
def test_more_pictures_at_once_than_a_network_takes_are_named(tiny, capsys):
    bench([tiny], batches=[4, 5], seconds=0.0)
    said = capsys.readouterr()
    assert "not measured, tiny: it takes at most 4 pictures at once" in said.err
    assert [line.split()[:3] for line in said.out.splitlines()[1:]] == [["tiny", "onnx", "4"]]
