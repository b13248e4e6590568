"""Metrics: what the contract says and nothing else, one snapshot of the flow, readable by Prometheus."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.metrics import values

from derma_common.contract import BUCKETS, CONTRACT, LABELS, OBJECTIVE_S
from derma_common.telemetry import Conservation, Metrics

FLOW = Conservation("cam0", 10, 5, {"busy": 2, "deadline": 1}, 2, 3, 1, 0.25)


@pytest.fixture
def metrics():
    """The metrics of every service in one registry."""
    all_of_them = Metrics("sink.0")
    sink = all_of_them.sink_only()
    all_of_them.classifier_only(8)
    all_of_them.detector_only(lambda: (3, 2, 8))
    all_of_them.conservation(lambda: FLOW)
    all_of_them.model("yolo", "ab" * 32, "onnx")
    sink.outcomes.labels("cam0", "delivered", "").inc()
    sink.findings.labels("cam0").inc(2)
    sink.frame_latency.labels("cam0").observe(0.2)
    sink.commit.observe(0.001)
    return all_of_them


def families(metrics):
    return list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))


def test_every_metric_is_of_the_contract_with_its_type_labels_and_meaning(metrics):
    specs = {spec.name.removesuffix("_total"): spec for spec in CONTRACT}
    for family in families(metrics):
        spec = specs[family.name.removesuffix("_total")]
        assert family.type == spec.kind
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(spec.labels)


def test_every_metric_is_named_derma_with_its_unit_in_the_name_and_explained():
    for spec in CONTRACT:
        assert re.fullmatch(r"derma_[a-z0-9_]+", spec.name)
        assert spec.meaning.endswith("."), spec.name
        assert (spec.kind == "counter") == spec.name.endswith("_total")
        if spec.kind == "histogram":
            assert spec.name.endswith("_seconds")
    assert len({spec.name for spec in CONTRACT}) == len(CONTRACT)


def test_every_label_is_of_a_closed_list():
    assert {label for spec in CONTRACT for label in spec.labels} <= set(LABELS)


def test_the_flow_of_a_camera_is_one_snapshot():
    calls = []

    def snapshot():
        calls.append(1)
        n = len(calls)
        return Conservation("cam0", 3 * n, n, {"busy": n}, n)

    metrics = Metrics("capture.cam0")
    metrics.conservation(snapshot)
    before = len(calls)
    terms = values(metrics, "derma_frames")
    assert len(calls) == before + 1
    captured = terms.pop(("cam0", "", "captured"))
    assert captured == sum(terms.values())


def test_the_flow_has_all_its_terms(metrics):
    assert values(metrics, "derma_frames") == {
        ("cam0", "", "captured"): 10, ("cam0", "", "delivered"): 5, ("cam0", "", "in_flight"): 2,
        ("cam0", "busy", "dropped"): 2, ("cam0", "deadline", "dropped"): 1,
    }  # fmt: skip
    assert values(metrics, "derma_ring_slots") == {("cam0", "free"): 1, ("cam0", "held"): 2}
    assert values(metrics, "derma_picture_age_seconds") == {("cam0",): 0.25}


@pytest.mark.parametrize(("terms", "holds"), [((10, 5, {"a": 3}, 2), True), ((10, 5, {"a": 3}, 1), False)])
def test_conservation_knows_whether_it_holds(terms, holds):
    assert Conservation("cam0", *terms).holds is holds


def test_the_objective_is_a_bucket_edge():
    assert OBJECTIVE_S in BUCKETS


def test_the_endpoint_serves_what_is_declared(metrics):
    server = metrics.serve("127.0.0.1")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        server.close()
    assert 'derma_model_info{name="yolo",runner="onnx"' in text


def test_promtool_finds_nothing_to_complain_of(metrics):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=generate_latest(metrics.registry), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
