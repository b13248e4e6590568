"""What changed between two scrapes: rates, quantiles, processes that were started again or do not answer."""

from __future__ import annotations

import json
import math

import pytest

from derma_cli.endpoints import TARGETS_FILE
from derma_cli.scrapes import Change, Scrape, quantile, scrape
from derma_common.telemetry import Metrics, Sample

INF = math.inf


def histogram(name, counts, **labels):
    return [Sample(f"{name}_bucket", labels | {"le": edge}, value) for edge, value in counts.items()]


# expected: PromQL's histogram_quantile of the same buckets, from Prometheus 2.42
@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, {0.1: 5, 0.2: 10, INF: 10}, 0.1),
        (0.75, {0.1: 5, 0.2: 10, INF: 10}, 0.15),
        (0.5, {0.1: 0, 0.2: 4, INF: 4}, 0.15),
        (0.99, {0.1: 1, 0.2: 2, INF: 4}, 0.2),
        (0.25, {0.1: 4, INF: 4}, 0.025),
    ],
)
def test_a_quantile_is_what_prometheus_says(q, buckets, expected):
    assert quantile(q, buckets) == pytest.approx(expected)


@pytest.mark.parametrize("buckets", [{}, {0.1: 0, INF: 0}, {INF: 3}])
def test_there_is_no_quantile_of_nothing(buckets):
    assert quantile(0.5, buckets) is None


def test_a_rate_is_the_growth_per_second_over_all_series_that_match():
    def at(t, a, b, c):
        return Scrape(t, {"x": [Sample("n_total", {"k": "a"}, a), Sample("n_total", {"k": "b"}, b)],
                          "y": [Sample("n_total", {"k": "a"}, c)]})  # fmt: skip

    change = Change(at(10.0, 0, 5, 100), at(12.0, 4, 5, 102))
    assert change.rate("n_total") == pytest.approx(3.0)
    assert change.rate("n_total", "x") == pytest.approx(2.0)
    assert change.rate("n_total", k="b") == 0.0
    assert change.after.total("n_total", k="a") == 106


def test_a_counter_that_fell_was_started_again():
    before, after = (Scrape(t, {"x": [Sample("n_total", {}, v)]}) for t, v in ((0.0, 50), (1.0, 3)))
    assert Change(before, after).increase("n_total") == 3


def test_the_quantile_between_two_scrapes_counts_only_what_is_new():
    old = {"0.1": 100, "0.2": 100, "+Inf": 100}
    new = {"0.1": 100, "0.2": 110, "+Inf": 110}
    before, after = (Scrape(t, {"x": histogram("h", c, stage="sink")}) for t, c in ((0.0, old), (1.0, new)))
    assert Change(before, after).quantile(0.5, "h", stage="sink") == pytest.approx(0.15)
    assert Change(after, after).quantile(0.5, "h", stage="sink") is None


def test_every_endpoint_of_the_list_is_asked_and_who_does_not_answer_is_known(tmp_path):
    metrics = Metrics("sink.0")
    metrics.invalid.inc(7)
    server = metrics.serve("127.0.0.1")
    groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"service": "sink", "instance": name}}
              for name, port in (("sink.0", server.port), ("gone.0", 1))]  # fmt: skip
    (tmp_path / TARGETS_FILE).write_text(json.dumps(groups))
    try:
        seen = scrape(tmp_path)
    finally:
        server.close()
    assert seen.total("derma_invalid_messages_total") == 7 and seen.by_instance["gone.0"] is None


def test_without_a_list_nobody_is_asked(tmp_path):
    assert scrape(tmp_path).by_instance == {}
