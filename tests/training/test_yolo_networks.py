"""YOLOv4 and YOLOv4-tiny: as large as Darknet's, layer for layer, and wired as Darknet's."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from derma_training.detector.cfg import bflops, operations, parameter_count, parameters, stored_floats
from derma_training.detector.networks import network

TABLES = Path(__file__).resolve().parents[3] / "shared" / "research"


@pytest.mark.parametrize(
    ("name", "classes", "size", "count", "billions"),
    [
        ("yolov4", 80, 416, 64_363_101, 60.137),
        ("yolov4", 80, 320, 64_363_101, 35.58),
        ("yolov4", 80, 608, 64_363_101, 128.46),
        ("yolov4", 1, 416, 63_937_686, 59.56),
        ("yolov4-tiny", 80, 416, 6_056_606, 6.910),
        ("yolov4-tiny", 1, 416, 5_874_116, 6.787),
    ],
)
def test_they_have_darknets_numbers_of_parameters_and_operations(name, classes, size, count, billions):
    config = network(name, classes, size, size)
    assert parameter_count(config) == count
    assert bflops(config) == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize(("name", "floats"), [("yolov4", 64_429_405), ("yolov4-tiny", 6_062_814)])
def test_a_weights_file_has_darknets_length(name, floats):
    config = network(name)
    assert sum(stored_floats(layer, config.input_of(n)[0]) for n, layer in enumerate(config.layers)) == floats


@pytest.mark.parametrize(
    ("name", "strides", "scales"),
    [("yolov4", [8, 16, 32], [1.2, 1.1, 1.05]), ("yolov4-tiny", [32, 16], [1.05, 1.05])],
)
def test_the_heads_have_darknets_strides_and_scales(name, strides, scales):
    heads = network(name).heads
    assert [head.stride for head in heads] == strides
    assert [head.yolo.scale_x_y for head in heads] == scales


@pytest.mark.parametrize("name", ["yolov4", "yolov4-tiny"])
def test_every_layer_is_that_of_the_published_table(name):
    file = TABLES / f"{name.replace('-', '_')}_layers_416.tsv"
    if not file.exists():
        pytest.skip(f"the layer tables are not here: {file}")
    config = network(name)
    with file.open(encoding="utf-8") as lines:
        rows = [row for row in csv.reader(lines, delimiter="\t") if len(row) == 6]
    assert len(rows) == len(config.layers)
    for number, (layer, shape, row) in enumerate(zip(config.layers, config.shapes, rows, strict=True)):
        before = config.input_of(number)
        assert row[1] == type(layer).__name__.lower()
        assert row[3] == str(shape)
        assert int(row[4]) == parameters(layer, before[0])
        assert float(row[5]) == pytest.approx(operations(layer, before, shape) / 1e9, abs=5.1e-4)
        if layer_activation := getattr(layer, "activation", None):
            assert layer_activation in row[2]
