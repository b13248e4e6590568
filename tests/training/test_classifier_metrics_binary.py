"""The columns of Table II: by closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_training.classifier.metrics_binary import (
    COLUMNS,
    at_threshold,
    auc_above_sensitivity,
    auroc,
    average_precision,
    class_table,
    curve,
)


def drawn(seed: int, levels: int = 6, n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores with many ties, and positives among them."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    positive[:2] = True, False
    return rng.integers(0, levels, n) / levels, positive


@given(st.integers(0, 2**32 - 1), st.integers(2, 50))
def test_auroc_counts_pairs_with_ties_as_half(seed: int, levels: int) -> None:
    scores, positive = drawn(seed, levels)
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert auroc(scores, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean(), abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(2, 50))
def test_the_area_above_no_sensitivity_is_the_whole_area(seed: int, levels: int) -> None:
    scores, positive = drawn(seed, levels)
    assert auc_above_sensitivity(scores, positive, 1e-12) == pytest.approx(auroc(scores, positive), abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(2, 50))
def test_the_area_above_a_sensitivity_is_an_integral_under_the_curve(seed: int, levels: int) -> None:
    scores, positive = drawn(seed, levels)
    points = curve(scores, positive)
    fall_out = (np.arange(20000) + 0.5) / 20000
    found = np.interp(fall_out, points.fall_out, points.sensitivity)
    assert auc_above_sensitivity(scores, positive) == pytest.approx((found * (found >= 0.8)).mean(), abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "wanted"), [([0.3, 0.7, 0.3, 0.7], 0.495), ([0.1, 0.2, 0.8, 0.9], 1.0), ([0.9, 0.8, 0.2, 0.1], 0.0)]
)
def test_the_area_above_a_sensitivity_has_the_values_of_the_scorers_own_tests(
    scores: list[float], wanted: float
) -> None:
    positive = np.asarray([False, False, True, True])
    assert auc_above_sensitivity(np.asarray(scores), positive, 0.1) == pytest.approx(wanted)


def test_chance_has_an_area_of_a_hundred_and_eighty_thousandths_above_four_fifths() -> None:
    assert auc_above_sensitivity(np.zeros(10), np.arange(10) < 5) == pytest.approx((1 - 0.8**2) / 2)


@given(st.integers(0, 2**32 - 1), st.integers(2, 50))
def test_average_precision_sums_steps_over_distinct_thresholds(seed: int, levels: int) -> None:
    scores, positive = drawn(seed, levels)
    wanted, found_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        found = (called & positive).sum() / positive.sum()
        wanted += (found - found_before) * positive[called].mean()
        found_before = found
    assert average_precision(scores, positive) == pytest.approx(wanted, abs=1e-12)


def test_a_perfect_classifier_has_ones_everywhere() -> None:
    table = class_table(np.eye(3)[[0, 1, 2, 1]], np.asarray([0, 1, 2, 1]))
    assert {name: column.tolist() for name, column in table.items()} == dict.fromkeys(COLUMNS, [1.0] * 3)


def test_shares_at_the_threshold_are_those_of_the_four_counts() -> None:
    scores = np.asarray([0.9, 0.8, 0.51, 0.5, 0.2, 0.1, 0.7, 0.6])
    positive = np.asarray([1, 1, 1, 1, 0, 0, 0, 1], dtype=bool)  # tp 4, fn 1 (0.5 is not above), fp 1, tn 2
    assert at_threshold(scores, positive, 0.5) == pytest.approx(
        {"accuracy": 6 / 8, "sensitivity": 4 / 5, "specificity": 2 / 3, "dice": 8 / 10, "ppv": 4 / 5, "npv": 2 / 3}
    )


def test_a_class_that_neither_occurs_nor_is_called_has_ones_and_no_area() -> None:
    table = class_table(np.asarray([[0.9, 0.1], [0.8, 0.2]]), np.asarray([0, 0]))
    assert [table[name][1] for name in ("accuracy", "sensitivity", "dice", "ppv", "npv")] == [1.0] * 5
    assert np.isnan(table["auc"]).all() and np.isnan(table["auc80"]).all()


def test_a_curve_goes_from_nothing_called_to_everything_called() -> None:
    points = curve(np.asarray([0.2, 0.9, 0.2, 0.4]), np.asarray([True, True, False, False]))
    assert points.thresholds.tolist() == [np.inf, 0.9, 0.4, 0.2]
    assert points.sensitivity.tolist() == [0.0, 0.5, 0.5, 1.0]
    assert points.fall_out.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert points.precision.tolist() == [1.0, 1.0, 0.5, 0.5]
