"""Metrics: named by one rule, one snapshot of the flow, readable by Prometheus."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from derma_common.telemetry import Conservation, Metrics

FLOW = Conservation("cam0", 10, 5, {"busy": 2, "deadline": 1}, 2, 3, 1, 0.25)


@pytest.fixture
def metrics():
    """Every metric of every service in one registry."""
    all_of_them = Metrics("sink.0")
    sink = all_of_them.sink_only()
    all_of_them.classifier_only(8, "classifier.0")
    all_of_them.detector_only(lambda: 3)
    all_of_them.conservation(lambda: FLOW)
    all_of_them.model("yolo", "ab" * 32, "onnx")
    sink.outcomes.labels("cam0", "delivered", "").inc()
    sink.findings.labels("cam0").inc(2)
    sink.frame_latency.labels("cam0").observe(0.2)
    sink.commit.observe(0.001)
    all_of_them.wait.observe(0.1)
    all_of_them.service.observe(0.1)
    return all_of_them


def families(metrics):
    return list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))


def samples(metrics, name):
    """Return label values, in the order of the labels' names → value."""
    return {tuple(v for _, v in sorted(s.labels.items())): s.value for f in families(metrics) for s in f.samples if s.name == name}


def test_every_metric_is_named_derma_with_its_unit_in_the_name_and_explained(metrics):
    for family in families(metrics):
        assert re.fullmatch(r"derma_[a-z0-9_]+", family.name)
        assert family.documentation.endswith("."), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_no_label_names_a_subject_an_address_or_a_process(metrics):
    labels = {label for f in families(metrics) for s in f.samples for label in s.labels}
    assert labels <= {
        "stage", "instance_name", "camera", "state", "reason", "outcome", "le", "name", "sha256", "runner",
    }  # fmt: skip


def test_the_flow_of_a_camera_is_one_snapshot():
    calls = []

    def snapshot():
        calls.append(1)
        n = len(calls)
        return Conservation("cam0", 3 * n, n, {"busy": n}, n)

    metrics = Metrics("capture.cam0")
    metrics.conservation(snapshot)
    before = len(calls)
    terms = samples(metrics, "derma_frames")
    assert len(calls) == before + 1
    captured = terms.pop(("cam0", "", "captured"))
    assert captured == sum(terms.values())


def test_the_flow_has_all_its_terms(metrics):
    assert samples(metrics, "derma_frames") == {
        ("cam0", "", "captured"): 10, ("cam0", "", "delivered"): 5, ("cam0", "", "in_flight"): 2,
        ("cam0", "busy", "dropped"): 2, ("cam0", "deadline", "dropped"): 1,
    }  # fmt: skip
    assert samples(metrics, "derma_ring_slots") == {("cam0", "free"): 1, ("cam0", "held"): 2}
    assert samples(metrics, "derma_picture_age_seconds") == {("cam0",): 0.25}


@pytest.mark.parametrize(("changes", "holds"), [((10, 5, {"a": 3}, 2), True), ((10, 5, {"a": 3}, 1), False)])
def test_conservation_knows_whether_it_holds(changes, holds):
    assert Conservation("cam0", *changes).holds is holds


def test_the_objective_is_a_bucket_edge(metrics):
    edges = {labels[-1] for labels in samples(metrics, "derma_frame_latency_seconds_bucket")}
    assert "0.25" in edges


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
