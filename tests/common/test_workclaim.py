"""What a worker says to detectors: absolute counts of its own detectors, whatever others claim."""

from __future__ import annotations

import time

import pytest

from derma_common.messages import Capacity, Farewell
from derma_common.workclaim import LEAVE_WITHIN_NS, STATE_EVERY_NS, WorkClaim

NOW = 10**12


@pytest.fixture
def claim():
    return WorkClaim("classifier.0", ["detector.0", "detector.1"], rank=1)


def test_a_statement_says_what_is_finished_and_what_may_come(claim):
    claim.finished("detector.0/0", 2)
    claim.finished("detector.0/0", 1)
    assert claim.statement(8, NOW) == Capacity("classifier.0", 8, {"detector.0/0": 3}, 1)
    assert not claim.is_due(NOW + STATE_EVERY_NS - 1) and claim.is_due(NOW + STATE_EVERY_NS)


def test_a_detectors_successor_starts_at_none(claim):
    claim.finished("detector.0/0", 2)
    claim.finished("detector.1/0", 5)
    claim.finished("detector.0/1", 1)
    assert claim.statement(8, NOW).finished == {"detector.0/1": 1, "detector.1/0": 5}


def test_whoever_is_no_detector_of_the_run_leaves_no_trace(claim):
    for i in range(10_000):
        claim.finished(f"detector.{i + 2}/0", 1)
        claim.confirmed(Farewell(f"detector.{i + 2}/0", 1))
    assert claim.statement(8, NOW).finished == {}
    claim.leave()
    for name in ("detector.0/0", "detector.1/0"):
        claim.confirmed(Farewell(name, 0))
    assert claim.released


def test_leaving_is_stated_at_once_and_waits_for_every_confirmation(claim):
    claim.statement(8, NOW)
    claim.leave()
    assert claim.is_due(NOW) and claim.statement(8, NOW).room == 0
    claim.confirmed(Farewell("detector.0/0", 0))
    assert not claim.released
    claim.confirmed(Farewell("detector.1/3", 2))
    assert not claim.released, "two crops are still to come"
    claim.finished("detector.1/3", 2)
    assert claim.released


def test_a_detector_that_confirms_nothing_is_not_waited_for_forever(claim, monkeypatch):
    claim.leave()
    assert not claim.released
    later_ns = time.monotonic_ns() + LEAVE_WITHIN_NS + 1
    monkeypatch.setattr("derma_common.workclaim.time.monotonic_ns", lambda: later_ns)
    assert claim.released
