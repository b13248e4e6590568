"""When not to answer: scores against their definitions, the threshold against its guarantee."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.errors import ConfigError
from derma_common.posterior_abstention import (
    abstention_threshold,
    binomial_upper_bound,
    max_softmax,
    nearest_neighbour_score,
    negative_energy,
    risk_coverage,
)
from derma_common.preprocess import softmax

SEEDS = st.integers(0, 2**32 - 1)


def test_the_largest_probability_is_the_score():
    assert max_softmax([[0.2, 0.7, 0.1], [0.4, 0.3, 0.3]]).tolist() == [0.7, 0.4]


@given(SEEDS, st.floats(0.1, 10))
def test_energy_and_softmax_give_the_logits_back(seed, temperature):
    """log p_c = z_c / T − energy / T, by the definition of the softmax."""
    logits = np.random.default_rng(seed).normal(0, 3, (5, 4)).astype(np.float32)
    energy = negative_energy(logits, temperature)
    probabilities = np.exp((logits - energy[:, None]) / temperature)
    assert probabilities == pytest.approx(softmax(logits, temperature), abs=1e-6)


def test_energy_of_large_logits_does_not_overflow():
    assert negative_energy([[1000.0, 1000.0]]) == pytest.approx([1000.0 + math.log(2)])


@given(SEEDS, st.integers(1, 6))
def test_the_neighbour_score_is_the_kth_smallest_distance_counted_by_hand(seed, k):
    rng = np.random.default_rng(seed)
    features, known = rng.normal(size=(300, 3)), rng.normal(size=(6, 3))
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    distances = ((unit(features)[:, None] - unit(known)[None]) ** 2).sum(axis=2)
    assert nearest_neighbour_score(features, known, k) == pytest.approx(-np.sort(distances, axis=1)[:, k - 1], abs=1e-9)


def test_a_known_picture_is_its_own_nearest_neighbour_and_the_opposite_is_farthest():
    assert nearest_neighbour_score([[3.0, 4.0], [-6.0, -8.0]], [[6.0, 8.0]], k=1) == pytest.approx([0.0, -4.0])


@pytest.mark.parametrize("k", [0, 3])
def test_a_neighbour_that_does_not_exist_is_refused(k):
    with pytest.raises(ValueError, match="nearest of 2 features does not exist"):
        nearest_neighbour_score(np.ones((1, 2)), np.ones((2, 2)), k)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.6, 0.9]), st.booleans()), min_size=1, max_size=30))
def test_risk_and_coverage_are_counts_at_each_distinct_score(answers):
    score, correct = (np.asarray(values) for values in zip(*answers, strict=True))
    thresholds, coverages, risks = risk_coverage(score, correct)
    assert thresholds.tolist() == sorted(set(score.tolist()), reverse=True)
    for threshold, coverage, risk in zip(thresholds, coverages, risks, strict=True):
        given = score >= threshold
        assert coverage == pytest.approx(given.mean())
        assert risk == pytest.approx((~correct[given]).mean())


def binomial_cdf(events, trials, p):
    return sum(math.comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in range(events + 1))


@given(st.integers(1, 60), st.data(), st.floats(0.001, 0.5))
def test_at_the_binomial_bound_so_few_events_have_the_stated_probability(trials, data, error_rate):
    events = data.draw(st.integers(0, trials - 1))
    assert binomial_cdf(events, trials, binomial_upper_bound(events, trials, error_rate)) == pytest.approx(error_rate)


def test_binomial_bounds_in_closed_form():
    assert binomial_upper_bound(0, 58, 0.05) == pytest.approx(1 - 0.05 ** (1 / 58))
    assert binomial_upper_bound(7, 7, 0.05) == 1.0
    assert binomial_upper_bound(0, 0, 0.05) == 1.0


def drawn(rng, n):
    """Draw scores in (0, 1), coarse so that there are ties, and answers that are right with that probability."""
    score = rng.uniform(size=n).round(2)
    return score, rng.uniform(size=n) < score


def true_risk(threshold):
    """Return the exact risk of the answers of `drawn` with a score above `threshold`."""
    scores = np.arange(0, 101) / 100
    weights = np.where((scores == 0) | (scores == 1), 0.5, 1.0) * (scores > threshold)
    return float((weights * (1 - scores)).sum() / weights.sum())


def test_the_stated_risk_is_kept_as_often_as_promised():
    rng = np.random.default_rng(0)
    found = [abstention_threshold(*drawn(rng, 1000), risk=0.25, error_rate=0.2) for _ in range(300)]
    broken = sum(true_risk(answer.threshold) > 0.25 for answer in found)
    assert broken / 300 <= 0.2
    assert 0.3 < np.mean([answer.coverage for answer in found]) < 0.5  # 0.5 is the most that keeps the risk


def test_coverage_risk_and_bound_are_those_of_the_threshold():
    score, correct = drawn(np.random.default_rng(1), 500)
    answer = abstention_threshold(score, correct, risk=0.3)
    given = score > answer.threshold
    assert (answer.coverage, answer.risk) == (given.mean(), (~correct[given]).mean())
    assert answer.risk < answer.bound < 0.3


def test_a_network_that_is_always_right_answers_everything():
    answer = abstention_threshold(np.linspace(0, 1, 1000), np.ones(1000, dtype=bool), risk=0.05)
    assert (answer.threshold, answer.coverage, answer.risk) == (-math.inf, 1.0, 0.0)


@pytest.mark.parametrize(("n", "right"), [(0, True), (8, True), (500, False)])
def test_a_risk_that_the_pictures_cannot_assure_is_refused_with_what_they_can(n, right):
    with pytest.raises(ConfigError, match=rf"no threshold keeps the risk below 0\.1: the lowest that {n} held-out"):
        abstention_threshold(np.linspace(0, 1, n), np.full(n, right), risk=0.1)


@pytest.mark.parametrize(("risk", "error_rate"), [(0.0, 0.05), (1.0, 0.05), (0.1, 0.0), (0.1, float("nan"))])
def test_a_risk_that_is_no_share_is_refused(risk, error_rate):
    with pytest.raises(ConfigError, match="must lie between 0 and 1"):
        abstention_threshold([0.5], [True], risk, error_rate)
