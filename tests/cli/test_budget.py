"""The latency budget of a run from its stored times."""

from __future__ import annotations

import numpy as np
import pytest

from derma_cli.budget import budget_of

NAN = float("nan")


class Store:
    """The one question that the budget asks the store."""

    def __init__(self, rows, live):
        self.rows, self.live = rows, live

    def timings(self, run):
        return np.asarray(self.rows, dtype=np.float64).reshape(-1, 9), np.asarray(self.live, dtype=bool)


# end to end, then wait and service of capture, detector, classifier, sink
WAITS = [200.0, 30.0, 5.0, 10.0, 40.0, 90.0, 30.0, 1.0, 4.0]
NO_CROPS = [60.0, 30.0, 5.0, 10.0, 40.0, NAN, NAN, 1.0, 4.0]


def shares(budget):
    return {(p.stage, p.part): p.share for p in budget.parts}


def test_the_shares_are_of_the_end_to_end_time_and_capture_of_a_recording_comes_before():
    budget = budget_of(Store([WAITS] * 4, [False] * 4), "run")
    assert shares(budget)[("classifier", "wait")] == pytest.approx(0.45)
    assert shares(budget)[("capture", "wait")] is None
    assert "before" in budget.lines()[3]
    assert budget.within_objective == 1.0 and budget.p50_ms == 200.0


def test_a_live_camera_waits_within_the_end_to_end_time():
    assert shares(budget_of(Store([WAITS], [True]), "run"))[("capture", "wait")] == pytest.approx(0.15)


def test_the_stage_that_frames_wait_for_is_the_one_to_scale():
    budget = budget_of(Store([WAITS], [True]), "run")
    assert budget.scale == "classifier" and "derma scale classifier=N" in budget.advice()
    assert budget.as_json()["advice"] == budget.advice()


def test_where_nothing_waits_nothing_is_to_be_scaled():
    quick = [100.0, 0.0, 5.0, 5.0, 50.0, 5.0, 30.0, 1.0, 4.0]
    assert budget_of(Store([quick], [False]), "run").scale == ""


def test_frames_without_crops_count_for_the_mean_and_not_for_the_percentiles():
    budget = budget_of(Store([WAITS, NO_CROPS], [False, False]), "run")
    (wait,) = [p for p in budget.parts if (p.stage, p.part) == ("classifier", "wait")]
    assert wait.p50_ms == 90.0 and wait.mean_ms == 45.0


def test_a_run_without_frames_has_an_empty_budget():
    budget = budget_of(Store([], []), "run")
    assert budget.frames == 0 and budget.within_objective is None
    assert budget.advice() == "no frame has its times yet" and budget.lines()
