"""Figures over all classes, calibration and the temperature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.preprocess import softmax
from derma_training.classifier.metrics import (
    UNDECIDED,
    accuracy,
    balanced_accuracy,
    calibration_error,
    confusion,
    decisions,
    fit_temperature,
    macro_auc,
    negative_log_likelihood,
    reliability,
    sensitivities,
)


def drawn_logits(seed: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits (600, 4) and truths sampled from their softmax, then sharpen the logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (600, 4)).astype(np.float32)
    truth = np.asarray([rng.choice(4, p=p / p.sum()) for p in softmax(logits).astype(np.float64)])
    return logits * np.float32(sharpness), truth


def test_the_temperature_of_two_classes_has_its_closed_form() -> None:
    logits = np.tile(np.asarray([[3.0, 0.0]], dtype=np.float32), (100, 1))
    truth = np.asarray([0] * 80 + [1] * 20)  # σ(3 / T) = 0.8
    assert fit_temperature(logits, truth) == pytest.approx(3.0 / np.log(0.8 / 0.2), rel=1e-3)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_best_of_a_grid(sharpness: float) -> None:
    logits, truth = drawn_logits(1, sharpness)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 400))
    best = grid[np.argmin([negative_log_likelihood(logits, truth, t) for t in grid])]
    assert fit_temperature(logits, truth) == pytest.approx(best, rel=0.02)
    assert best == pytest.approx(sharpness, rel=0.25)


def test_the_temperature_mends_the_calibration_error() -> None:
    logits, truth = drawn_logits(2, 3.0)
    before = calibration_error(softmax(logits), truth)
    after = calibration_error(softmax(logits, fit_temperature(logits, truth)), truth)
    assert after < before / 2


def test_classes_that_do_not_occur_do_not_count() -> None:
    scores = np.eye(4, dtype=np.float32)[[0, 0, 1, 3]]
    truth = np.asarray([0, 0, 1, 1])
    assert sensitivities(scores, truth) == {0: 1.0, 1: 0.5}
    assert balanced_accuracy(scores, truth) == 0.75
    assert macro_auc(scores, truth) == pytest.approx((1.0 + 0.75) / 2)


def test_a_tie_for_the_best_score_is_undecided_and_wrong() -> None:
    scores = np.asarray([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.1, 0.8, 0.1]])
    assert decisions(scores).tolist() == [UNDECIDED, UNDECIDED, 1]
    assert accuracy(scores, np.asarray([0, 1, 1])) == pytest.approx(1 / 3)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_the_confusion_matrix_counts_every_picture_once(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, 4, (n, 3)) / 4, rng.integers(0, 3, n)
    counts = confusion(scores, truth)
    answers = decisions(scores) % 4  # undecided is the fourth column
    wanted = [[((truth == i) & (answers == j)).sum() for j in range(4)] for i in range(3)]
    assert counts.tolist() == np.asarray(wanted).tolist()
    assert np.trace(counts[:, :3]) / n == accuracy(scores, truth)


def test_a_sure_and_right_classifier_has_no_calibration_error() -> None:
    assert calibration_error(np.eye(3, dtype=np.float32), np.arange(3)) == 0.0
    assert calibration_error(np.eye(3, dtype=np.float32), np.asarray([1, 2, 0])) == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_the_calibration_error_is_its_definition(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, truth = rng.dirichlet(np.ones(4), n), rng.integers(0, 4, n)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    wanted = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            wanted += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert calibration_error(probabilities, truth) == pytest.approx(wanted)
    assert reliability(probabilities, truth)[0].sum() == n
